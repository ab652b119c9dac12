/** Figures as people read them. */

const NONE = "–";

const count = (value) => (Number.isFinite(value) ? value.toLocaleString("en") : NONE);
const rate = (value) => (Number.isFinite(value) ? value.toFixed(1) : NONE);

const milliseconds = (value) => (Number.isFinite(value) ? `${Math.round(value).toLocaleString("en")} ms` : NONE);

function times(figures, names = ["p50", "p95"]) {
  const values = names.map((name) => figures?.[name]);
  if (!values.every(Number.isFinite)) return NONE;
  return `${values.map((value) => Math.round(value).toLocaleString("en")).join(" / ")} ms`;
}

const share = (part) => (part ? `${count(part.now)} of ${count(part.most)}` : NONE);

function card(gpu) {
  const memory = `${count(gpu.memory_used_mib)} of ${count(gpu.memory_total_mib)} MiB`;
  return Number.isFinite(gpu.utilization) ? `${Math.round(gpu.utilization)} %, ${memory}` : memory;
}

/** Rows of a session: name, value, and what the name means. */
export function sessionRows(session) {
  return [
    ["Frames per second", rate(session?.fps), "Frames handed to viewers in a second"],
    ["Response time", times(session?.response_ms), "From the first sound of an utterance to its first speaking frame"],
    ["First frame", times(session?.first_frame_ms), "From a complete hop of sound to its first frame"],
    ["Last frame", times(session?.last_frame_ms), "From a complete hop of sound to its last frame"],
    ["Mouth to eye", times(session?.mouth_to_eye_ms), "From the arrival of a sound, silence too, to its frame"],
    ["Late", count(session?.late), "Frames that were made after their time"],
    ["Dropped", count(session?.dropped), "Frames that came too late to be shown"],
    ["Stalls", count(session?.stalls), "Times that the picture stood still while somebody spoke"],
    ["Viewers", count(session?.viewers), "Browsers and programs that watch"],
  ];
}

/**
 * Rows of what the browser counts of its connection.
 *
 * @param {RTCStatsReport | null} report
 */
export function browserRows(report) {
  const all = [...(report?.values() ?? [])];
  const picture = all.find((stats) => stats.type === "inbound-rtp" && stats.kind === "video");
  const way = all.find((stats) => stats.type === "candidate-pair" && stats.nominated && stats.state === "succeeded");
  const waited = (picture?.jitterBufferDelay / picture?.jitterBufferEmittedCount) * 1000;
  return [
    ["Pictures per second", rate(picture?.framesPerSecond), "Pictures that this browser shows in a second"],
    ["Buffer", milliseconds(waited), "How long pictures wait here so that they come evenly, and with their sound"],
    ["Round trip", milliseconds(way?.currentRoundTripTime * 1000), "From this browser to the service and back"],
    ["Packets lost", count(picture?.packetsLost), "Of the picture, on the way here"],
  ];
}

/** Rows of the whole service. */
export function serviceRows(service) {
  const rows = [
    ["Sessions", share(service?.sessions), "Faces that are shown now, and how many there may be"],
    ["Speakers", share(service?.speakers), "Faces that speak now, and how many this machine sustains at once"],
    ["Model", service ? `${service.model}, ${service.device}` : NONE, "Which networks, and where they run"],
  ];
  if (service?.gpu) rows.push([service.gpu.name ?? "GPU", card(service.gpu), "Load and memory of the GPU"]);
  return rows;
}

/**
 * Write rows into a definition list; elements that are there are kept.
 *
 * @param {HTMLDListElement} list
 * @param {[string, string, string][]} rows
 */
export function show(list, rows) {
  while (list.children.length > rows.length) list.lastElementChild.remove();
  while (list.children.length < rows.length) {
    const row = document.createElement("div");
    row.append(document.createElement("dt"), document.createElement("dd"));
    list.append(row);
  }
  rows.forEach(([name, value, meaning], at) => {
    const row = list.children[at];
    const [term, told] = row.children;
    row.title = meaning;
    if (term.textContent !== name) term.textContent = name;
    if (told.textContent !== value) told.textContent = value;
  });
}
