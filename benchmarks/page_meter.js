// An AudioWorklet: the power of every 256 samples, with the number of their first.
class Meter extends AudioWorkletProcessor {
  #sum = 0;
  #count = 0;
  #powers = [];

  process([[samples]]) {
    for (const value of samples ?? []) this.#sum += value * value;
    this.#count += 128;
    if (this.#count < 256) return true;
    this.#powers.push([currentFrame - 128, this.#sum / this.#count]);
    this.#sum = this.#count = 0;
    if (this.#powers.length === 10) {
      this.port.postMessage(this.#powers);
      this.#powers = [];
    }
    return true;
  }
}

registerProcessor("meter", Meter);
