// Runs in the page of `musetalk serve`: when each picture is seen and how open its mouth is, and how loud the sound is when.
//
// Times are milliseconds of `performance.now()`. A picture counts from when the browser expects it on the screen. The sound is
// taken where it leaves WebRTC for an AudioContext, a few milliseconds after the element that plays it gets the same.
async ({ box, seconds, meter }) => {
  const face = document.getElementById("face");
  const context = new AudioContext({ sampleRate: 48000 });
  await context.resume();
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([meter], { type: "text/javascript" })));
  const node = new AudioWorkletNode(context, "meter", { channelCount: 1, channelCountMode: "explicit" });
  const levels = [];
  const clocks = [];
  node.port.onmessage = ({ data }) => {
    clocks.push(performance.now() - context.currentTime * 1000);
    levels.push(...data);
  };
  context.createMediaStreamSource(new MediaStream(face.srcObject.getAudioTracks())).connect(node);
  node.connect(context.destination); // what leads nowhere is not computed

  const [left, top, right, bottom] = box;
  const [width, height] = [right - left, bottom - top];
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const pictures = [];
  const end = performance.now() + seconds * 1000;
  await new Promise((resolve) => {
    const look = (now, { expectedDisplayTime }) => {
      canvas.drawImage(face, left, top, width, height, 0, 0, width, height);
      const { data } = canvas.getImageData(0, 0, width, height);
      let sum = 0;
      for (let at = 0; at < data.length; at += 4) sum += 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
      pictures.push([expectedDisplayTime, sum / (width * height)]);
      if (now < end) face.requestVideoFrameCallback(look);
      else resolve();
    };
    face.requestVideoFrameCallback(look);
  });
  await context.close();
  // messages come late, and never early
  const clock = Math.min(...clocks);
  return { pictures, levels: levels.map(([frame, power]) => [(frame / 48000) * 1000 + clock, power]) };
}
