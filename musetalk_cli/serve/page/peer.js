/** One WebRTC connection to a session of the service. */

import { Refusal } from "./api.js";

const GATHERING_MS = 2_000; // a STUN server that does not answer would hold the offer up for half a minute
const SLOW_MS = 10_000;
const GIVE_UP_MS = 30_000;
const LOOK_MS = 1_000;
const STANDS_LOOKS = 5; // in a row without a new picture; by looks and not by time, which passes in a sleeping computer

export const NO_WAY = new Refusal(
  0,
  "No connection for picture and sound could be made.",
  "UDP between this browser and the service may be blocked. A TURN server helps: musetalk serve --ice-server turn:USER:PASSWORD@HOST.",
);
const NO_PICTURE = new Refusal(
  0,
  "Connected, but no picture comes.",
  "This browser may not decode H.264. Try another browser.",
);

export const STANDS = new Refusal(
  0,
  "No picture has come for some seconds, though the connection is up.",
  "The service or the network may be overloaded. Wait, or connect again.",
);

function gathered(connection) {
  return new Promise((resolve) => {
    const look = () => connection.iceGatheringState === "complete" && resolve();
    connection.addEventListener("icegatheringstatechange", look);
    setTimeout(resolve, GATHERING_MS);
    look();
  });
}

export class Peer {
  #connection;
  #sound;
  #settle = () => {};

  /** Its name at the service, once that has answered. */
  viewer = null;
  stream = null;

  /** Called when the connection broke, after it stood: with true where it may still come back by itself. */
  onbroken = () => {};
  onmended = () => {};

  /** Called with false when no picture comes any more though the connection stands, and with true once one does. */
  onpictures = () => {};
  #looking = null;

  constructor(iceServers) {
    this.#connection = new RTCPeerConnection({ iceServers });
  }

  /** Whether the microphone can be sent without a new connection. */
  get sends() {
    return this.#sound.direction === "sendrecv";
  }

  get connection() {
    return this.#connection;
  }

  /** The offer with its candidates; with a microphone's track, the sound goes both ways. */
  async offer(track = null) {
    this.#connection.addTransceiver("video", { direction: "recvonly" });
    this.#sound = this.#connection.addTransceiver(track ?? "audio", { direction: track ? "sendrecv" : "recvonly" });
    await this.#connection.setLocalDescription();
    await gathered(this.#connection);
    return this.#connection.localDescription.sdp;
  }

  /**
   * Take the answer, and wait until the first picture is there.
   *
   * @param {string} sdp
   * @param {(refusal: Refusal) => void} onslow Called once where this takes long, with what may be the reason.
   * @throws {Refusal} Where nothing came, in bounded time.
   */
  async accept(sdp, onslow) {
    const arrived = this.#arrival(onslow);
    await this.#connection.setRemoteDescription({ type: "answer", sdp });
    this.stream = new MediaStream(this.#connection.getReceivers().map((receiver) => receiver.track));
    await arrived;
    this.#connection.addEventListener("connectionstatechange", () => this.#watch());
    this.#watch();
    this.#lookForPictures();
  }

  /** The service sends pictures in silence, too. */
  #lookForPictures() {
    let before = -1;
    let same = 0;
    this.#looking = setInterval(async () => {
      const decoded = await this.#decoded();
      const stood = same >= STANDS_LOOKS;
      same = decoded === before ? same + 1 : 0;
      before = decoded;
      const stands = same >= STANDS_LOOKS;
      if (stood !== stands) this.onpictures(stood);
    }, LOOK_MS);
  }

  /** How many pictures were decoded. */
  async #decoded() {
    const stats = [...(await this.#connection.getStats()).values()];
    return stats.find((each) => each.type === "inbound-rtp" && each.kind === "video")?.framesDecoded ?? 0;
  }

  #arrival(onslow) {
    const connection = this.#connection;
    const reason = () => (connection.connectionState === "connected" ? NO_PICTURE : NO_WAY);
    const eye = this.#eye();
    return new Promise((resolve, reject) => {
      const slow = setTimeout(() => onslow(reason()), SLOW_MS);
      const late = setTimeout(() => this.#settle(reason()), GIVE_UP_MS);
      this.#settle = (refusal) => {
        clearTimeout(slow);
        clearTimeout(late);
        eye.srcObject = null;
        if (refusal) reject(refusal);
        else resolve();
      };
      eye.addEventListener("loadeddata", () => this.#settle(null));
      connection.addEventListener("connectionstatechange", () => {
        if (["failed", "closed"].includes(connection.connectionState)) this.#settle(NO_WAY);
      });
    });
  }

  /** A video that nobody sees: it tells that a picture could be decoded, while another connection is still shown. */
  #eye() {
    const picture = this.#connection.getReceivers().find((receiver) => receiver.track.kind === "video").track;
    const eye = document.createElement("video");
    Object.assign(eye, { muted: true, playsInline: true, autoplay: true, srcObject: new MediaStream([picture]) });
    return eye;
  }

  #watch() {
    const state = this.#connection.connectionState;
    if (state === "failed" || state === "closed") this.onbroken(false);
    else if (state === "disconnected") this.onbroken(true);
    else if (state === "connected") this.onmended();
  }

  /** Send another track, or nothing; only where `sends`. */
  async replace(track) {
    await this.#sound.sender.replaceTrack(track);
  }

  close() {
    this.onbroken = this.onmended = this.onpictures = () => {};
    clearInterval(this.#looking);
    this.#connection.close();
    this.#settle(NO_WAY);
  }
}
