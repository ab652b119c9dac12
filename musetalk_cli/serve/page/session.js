/** One session with the service: its connection, coming back to it, the microphone and what is spoken. */

import { Refusal } from "./api.js";
import { Peer, STANDS } from "./peer.js";

const MEND_MS = 2_000; // a network that changes is back in this time, or a new connection is needed
const BACK_OFF_S = [0, 1, 2, 4, 8, 8]; // the service keeps a session that nobody watches for a quarter of a minute
const PREPARING_MS = 60_000; // the first session of an avatar waits until that is loaded
const SLOW_MS = 10_000;
const MOST_BYTES = 64 * 2 ** 20;

const PREPARING = new Refusal(
  0,
  "The service is still getting the avatar ready.",
  "A large one takes a while the first time. If it takes a minute, the page stops waiting.",
);

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

export class Session {
  #api;
  #iceServers;
  #peer = null;
  #negotiating = null;
  #track = null;
  #mending = null;
  #stands = false;

  id = null;

  /** "connecting", "live", "reconnecting" or "over". */
  state = "connecting";

  onstate = () => {};
  onstream = () => {};

  /** Called with a Refusal that somebody should read, and with null once it is past. */
  onnotice = () => {};

  constructor(api, avatar, iceServers) {
    this.#api = api;
    this.avatar = avatar;
    this.#iceServers = iceServers;
  }

  /** Connect, with a microphone's track or without; afterwards the state is "live" or "over". */
  async start(track = null) {
    this.#track = track;
    try {
      await this.#connect(track);
    } catch (error) {
      this.#end(error);
    }
  }

  get connection() {
    return this.#peer?.connection ?? null;
  }

  get microphone() {
    return this.#track;
  }

  #enter(state) {
    if (this.state === "over") return;
    this.state = state;
    this.onstate(state);
  }

  #end(refusal) {
    if (this.state === "over") return;
    clearTimeout(this.#mending);
    this.#peer?.close();
    this.#track?.stop();
    this.#track = null;
    this.#enter("over");
    this.#negotiating?.close();
    if (refusal) this.onnotice(refusal);
  }

  /** Put a new connection in the place of the one there is; that works on until the new one shows a picture. */
  async #connect(track) {
    const peer = new Peer(this.#iceServers);
    this.#negotiating = peer;
    const slow = setTimeout(() => this.onnotice(PREPARING), SLOW_MS);
    try {
      const json = { sdp: await peer.offer(track), avatar: this.avatar, session: this.id };
      const answer = await this.#api.read("/v1/offer", { method: "POST", json, timeout: PREPARING_MS });
      clearTimeout(slow);
      this.id = answer.session;
      peer.viewer = answer.viewer;
      if (this.state === "over") {
        this.stop(); // which had no name to send, when somebody pressed it
        throw new Refusal(0, "The session was stopped.");
      }
      await peer.accept(answer.sdp, (refusal) => this.onnotice(refusal));
    } catch (error) {
      this.#abandon(peer);
      throw error;
    } finally {
      clearTimeout(slow);
      this.#negotiating = null;
    }
    this.#use(peer);
  }

  #use(peer) {
    const before = this.#peer;
    this.#peer = peer;
    this.#stands = false;
    peer.onbroken = (mayMend) => this.#broken(mayMend);
    peer.onmended = () => this.#mended();
    peer.onpictures = (come) => this.#tellOfPictures(come);
    this.onstream(peer.stream);
    this.onnotice(null);
    this.#enter("live");
    if (before) this.#abandon(before);
  }

  #tellOfPictures(come) {
    if (this.state !== "live") return;
    this.#stands = !come;
    this.onnotice(come ? null : STANDS);
  }

  #abandon(peer) {
    peer.close();
    if (peer.viewer) this.leave(peer.viewer);
  }

  /** Put a new connection in the place of one on which nothing comes. */
  renew() {
    this.#broken(false);
  }

  #broken(mayMend) {
    if (this.state !== "live") return;
    if (this.#stands) this.#tellOfPictures(true); // the connection does not stand any more
    this.#enter("reconnecting");
    this.#mending = setTimeout(() => this.#comeBack(), mayMend ? MEND_MS : 0);
  }

  #mended() {
    if (this.state !== "reconnecting" || this.#negotiating) return;
    clearTimeout(this.#mending);
    this.#enter("live");
  }

  async #comeBack() {
    let refusal = null;
    for (const seconds of BACK_OFF_S) {
      await sleep(seconds);
      if (this.state !== "reconnecting") return;
      try {
        await this.#connect(this.#track);
        return;
      } catch (error) {
        refusal = error;
        if ([401, 403, 404].includes(error.status)) break;
      }
    }
    this.#end(refusal);
  }

  /** Say what the service said of the session: that there is none of this name any more. */
  lost() {
    this.#end(new Refusal(404, "The session is over at the service.", "Connect again to start another."));
  }

  /**
   * Send a microphone's track, or stop the one that is sent (null).
   *
   * @throws {Refusal}
   */
  async hear(track) {
    const before = this.#track;
    this.#track = track;
    try {
      if (this.#peer.sends) await this.#peer.replace(track);
      else if (track) await this.#connect(track);
    } catch (error) {
      this.#track = null;
      track?.stop();
      throw error;
    } finally {
      before?.stop();
    }
  }

  /**
   * Speak a sound file from its start.
   *
   * @param {Blob} sound
   * @throws {Refusal}
   */
  async speak(sound) {
    if (sound.size > MOST_BYTES) throw new Refusal(413, "The file is larger than 64 MiB.", "Cut it, or compress it.");
    await this.#api.request(`/v1/sessions/${this.id}/speak`, { method: "POST", body: sound, timeout: 120_000 });
  }

  async interrupt() {
    await this.#api.request(`/v1/sessions/${this.id}/interrupt`, { method: "POST" });
  }

  /** What the service measured of the session. */
  async figures() {
    return await this.#api.read(`/v1/sessions/${this.id}`);
  }

  /** Tell the service that a viewer is gone, so that it need not find out; nothing depends on the answer. */
  leave(viewer = this.#peer?.viewer) {
    if (!viewer) return;
    const options = { method: "DELETE", keepalive: true };
    this.#api.request(`/v1/sessions/${this.id}/viewers/${viewer}`, options).catch(() => {});
  }

  /** End the session at once, for every viewer. */
  stop() {
    const { id } = this;
    this.#end(null);
    if (id) this.#api.request(`/v1/sessions/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  }
}
