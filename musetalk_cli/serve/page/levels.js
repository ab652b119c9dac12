/** How loud a track is, drawn as a bar. */

const FLOOR_DB = -60;
const FALL_DB = 3; // from one drawing to the next; a bar that falls at once flickers
const CALM_MS = 250;

export class Level {
  #bar;
  #meter;
  #analyser = null;
  #source = null;
  #track = null;
  #samples = new Float32Array(1024);
  #shown = FLOOR_DB;
  #told = 0;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  /** @param {HTMLElement} meter Of the role "meter", with one element inside that is the bar. */
  constructor(meter) {
    this.#meter = meter;
    this.#bar = meter.firstElementChild;
  }

  /**
   * Listen to a track, or to none (null).
   *
   * @param {AudioContext} context
   * @param {MediaStreamTrack | null} track
   */
  follow(context, track) {
    if (track === this.#track) return;
    this.#track = track;
    this.#source?.disconnect();
    this.#source = this.#analyser = null;
    if (!track) return;
    this.#analyser = new AnalyserNode(context, { fftSize: 2 * this.#samples.length });
    this.#source = context.createMediaStreamSource(new MediaStream([track]));
    this.#source.connect(this.#analyser);
  }

  /** The level now, in dB of full scale. */
  #measure() {
    if (!this.#analyser) return FLOOR_DB;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, value) => sum + value * value, 0) / this.#samples.length;
    return Math.max(FLOOR_DB, Math.min(0, 10 * Math.log10(power + 1e-12)));
  }

  /** Draw it as it is now, in milliseconds of any clock; for who wants no motion it changes four times a second. */
  draw(now) {
    const due = now - this.#told >= CALM_MS;
    if (this.#calm.matches && !due) return;
    this.#show(Math.max(this.#measure(), this.#shown - FALL_DB));
    if (!due) return;
    this.#told = now;
    this.#tell();
  }

  /** Draw it as silence. */
  rest() {
    this.#show(FLOOR_DB);
    this.#tell();
  }

  /** To whoever does not see the bar. */
  #tell() {
    const level = Math.round(this.#shown);
    this.#meter.setAttribute("aria-valuenow", String(level));
    this.#meter.setAttribute("aria-valuetext", level > FLOOR_DB ? `${level} dB` : "silent");
  }

  #show(level) {
    this.#shown = level;
    this.#bar.style.transform = `scaleX(${1 - level / FLOOR_DB})`;
  }
}
