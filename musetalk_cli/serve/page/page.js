/** The page: what is pressed, and what is shown. */

import { Api, Refusal, Unanswered, avatarPath } from "./api.js";
import { Avatars } from "./avatars.js";
import { browserRows, serviceRows, sessionRows, show } from "./figures.js";
import { guard, isGateOpen } from "./gate.js";
import { Level } from "./levels.js";
import { openMicrophone } from "./microphone.js";
import { isShown, notify, setText } from "./notice.js";
import { STANDS } from "./peer.js";
import { Session } from "./session.js";

const SECOND_MS = 1_000;
const LEVEL_MS = 33;
const IDLE_POLLS = 5; // of the service, while nobody is connected: every fifth second

const element = (id) => document.getElementById(id);
const api = new Api();
const avatars = new Avatars(api, element("avatars"));
const face = element("face");
const levelIn = new Level(element("level-in"));
const levelOut = new Level(element("level-out"));

let context = null;
let session = null;
let service = null;
let ready = false;
let locked = false;
let speaking = false;
let doing = null;
let refused = null;
let answers = true;

const isOpen = () => session !== null && session.state !== "over";
const isLive = () => session?.state === "live";

// What is shown

const STATES = {
  connecting: "Connecting",
  live: "Connected",
};

const NOT_CONNECTED = { true: "Not connected", false: "The service does not answer" };
const LOST = { true: "Connection lost, coming back", false: "The service does not answer, trying again" };

function render() {
  const { chosen } = avatars;
  const open = isOpen();
  const state = open ? session.state : "idle";
  const canStart = doing === null && (open ? state === "live" : ready && chosen !== null);
  renderState(state);
  swap(element("connect"), element("stop"), open);
  element("connect").disabled = !canStart;
  const another = open && chosen && chosen.name !== session.avatar;
  element("change").hidden = !another;
  if (another) setText(element("change"), `Change to ${chosen.name}`);
  for (const id of ["microphone", "choose", "sample"]) element(id).disabled = !canStart;
  element("microphone").setAttribute("aria-pressed", String(Boolean(session?.microphone)));
  element("sample").hidden = !(open ? avatars.named(session.avatar) : chosen)?.sample;
  element("interrupt").disabled = !isLive();
  levelIn.follow(context, session?.microphone ?? null);
  drawLevels(open);
}

/** The state in words. That the face speaks is for the eye: a voice that says so would speak at the same time. */
function renderState(state) {
  const shown = speaking && state === "live" ? "speaking" : state;
  const words = state === "reconnecting" ? LOST[answers] : (STATES[state] ?? wordsOfNoSession());
  const told = state === "live" || state === "idle" ? (doing ?? words) : words;
  element("state").dataset.state = element("frame").dataset.state = shown;
  setText(element("state-text"), told);
  element("speaking").hidden = shown !== "speaking";
}

function wordsOfNoSession() {
  if (ready) return NOT_CONNECTED[answers];
  return locked ? "A token is needed" : "Loading";
}

/** Two buttons that share a place; who had the focus there keeps it. */
function swap(first, second, toSecond) {
  const focused = [first, second].includes(document.activeElement);
  first.hidden = toSecond;
  second.hidden = !toSecond;
  if (focused) (toSecond ? second : first).focus();
}

function showPoster() {
  const { chosen } = avatars;
  if (isOpen() || !chosen) return;
  const url = avatars.picture(chosen.name);
  element("poster").hidden = !url;
  if (url) element("poster").src = url;
  element("frame").style.setProperty("--ratio", chosen.width / chosen.height);
}

/** Do something that may be refused, and say so meanwhile. */
async function attempt(words, work) {
  doing = words;
  notify(null);
  render();
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.status !== 401) notify(error);
  } finally {
    doing = null;
    render();
  }
}

// Connecting, seeing and hearing

function onState(state) {
  if (state === "over") {
    face.hidden = true;
    face.srcObject = null;
    element("unmute").hidden = true;
    speaking = false;
    levelOut.follow(context, null);
    context.suspend();
    showPoster();
  }
  render();
}

async function onStream(stream) {
  face.srcObject = stream;
  face.hidden = false;
  levelOut.follow(context, stream.getAudioTracks()[0]);
  try {
    await face.play();
  } catch (error) {
    if (error.name !== "NotAllowedError") return; // another stream took its place
    face.muted = true;
    element("unmute").hidden = false;
    await face.play();
  }
}

async function connect(track = null) {
  context ??= new AudioContext();
  context.resume(); // this is called where somebody pressed something
  const name = avatars.chosen.name;
  session = new Session(api, name, service?.ice_servers ?? []);
  session.onstate = onState;
  session.onstream = onStream;
  session.onnotice = (refusal) => notify(refusal, session.state === "over" ? RETRY : refusal === STANDS ? RENEW : null);
  refused = null;
  onState("connecting");
  await session.start(track);
}

const RETRY = { name: "Try again", run: () => connect() };
const RENEW = { name: "Connect again", run: () => session.renew() };

async function toggleMicrophone() {
  if (session?.microphone && isLive()) {
    await session.hear(null);
    return;
  }
  const track = await openMicrophone();
  track.onended = async () => {
    if (session.microphone !== track) return;
    await attempt(null, () => session.hear(null));
    notify(new Refusal(0, "The microphone was disconnected.", "Connect it again, or choose another in the browser."));
  };
  if (isLive()) await session.hear(track);
  else await connect(track);
}

/** Speak what a function gives, after connecting where that is still to be done. */
async function speak(sound) {
  if (!isOpen()) await connect();
  if (!isLive()) return;
  await session.speak(await sound());
}

const speakFile = (file) => file && attempt(`Sending ${file.name}`, () => speak(async () => file));

// Once a second

let polls = 0;

async function poll() {
  try {
    if (document.visibilityState === "visible" && ready && !isGateOpen()) await look();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    noteAnswer(!(error instanceof Unanswered));
  } finally {
    render();
    setTimeout(poll, SECOND_MS);
  }
}

/** Whether the service answered, be it with a refusal; one that is back is not said to be away any more. */
function noteAnswer(came) {
  if (came && !answers && isShown(Unanswered)) notify(null);
  answers = came;
}

async function look() {
  polls += 1;
  if (isLive() || polls % IDLE_POLLS === 0) {
    service = await api.read("/v1/service");
    noteAnswer(true);
    show(element("service-figures"), serviceRows(service));
  }
  const asked = session;
  if (!isLive()) return;
  try {
    const figures = await asked.figures();
    if (asked !== session || !isLive()) return;
    show(element("session-figures"), sessionRows(figures));
    show(element("browser-figures"), browserRows(await asked.connection.getStats()));
    speaking = figures.speaking;
    if (figures.refused && figures.refused !== refused) notify(new Refusal(503, figures.refused));
    refused = figures.refused;
  } catch (error) {
    if (error.status === 404) asked.lost();
    else throw error;
  }
}

/** Levels are drawn while there is something to hear; a screen that nothing changes costs no power. */
let drawing = null;

function drawLevels(open) {
  const draw = () => [levelIn, levelOut].forEach((level) => level.draw(performance.now()));
  if (open) drawing ??= setInterval(draw, LEVEL_MS);
  if (open || drawing === null) return;
  clearInterval(drawing);
  drawing = null;
  [levelIn, levelOut].forEach((level) => level.rest());
}

// The service and its token

async function load() {
  locked = false;
  for (;;) {
    try {
      await api.request("/readyz");
      service = await api.read("/v1/service");
      await avatars.load();
      break;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      locked = error.status === 401;
      if (locked) return render(); // the form goes on
      notify(error);
      await new Promise((resolve) => setTimeout(resolve, 2 * SECOND_MS));
    }
  }
  ready = true;
  notify(avatars.chosen ? null : new Refusal(404, "There is no avatar to show.", "Make one: musetalk prepare-avatar"));
  show(element("service-figures"), serviceRows(service));
  render();
}

guard(api, load);

// What is pressed

avatars.onchoice = () => {
  showPoster();
  render();
};
element("faces").addEventListener("submit", (event) => event.preventDefault());
element("connect").addEventListener("click", () => attempt(null, () => connect()));
element("stop").addEventListener("click", () => {
  session.stop();
  notify(null);
});
element("change").addEventListener("click", () => {
  session.stop();
  attempt(null, () => connect());
});
element("microphone").addEventListener("click", () => attempt(null, toggleMicrophone));
element("sample").addEventListener("click", () => {
  const sound = () => api.blob(avatarPath(session.avatar, "sample"));
  attempt("Sending the sample", () => speak(sound));
});
element("choose").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", () => {
  speakFile(element("file").files[0]);
  element("file").value = "";
});
element("unmute").addEventListener("click", () => {
  face.muted = false;
  context.resume();
  element("unmute").hidden = true;
});

const interrupt = () => isLive() && attempt(null, () => session.interrupt());
element("interrupt").addEventListener("click", interrupt);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !isGateOpen()) interrupt();
});

const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  element("drop").hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").hidden = true;
});
document.addEventListener("drop", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  element("drop").hidden = true;
  if (!element("choose").disabled) speakFile(event.dataTransfer.files[0]);
});

window.addEventListener("pagehide", () => isOpen() && session.leave());

render();
show(element("session-figures"), sessionRows(null));
show(element("browser-figures"), browserRows(null));
show(element("service-figures"), serviceRows(null));
load();
poll();
