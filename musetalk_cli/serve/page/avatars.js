/** The avatars as a group of radio buttons with pictures. */

import { avatarPath } from "./api.js";

export class Avatars {
  #api;
  #group;
  #all = [];
  #pictures = new Map();

  /** Called when another avatar was chosen. */
  onchoice = () => {};

  constructor(api, group) {
    this.#api = api;
    this.#group = group;
    group.addEventListener("change", () => this.onchoice());
  }

  /** The avatar that is chosen, as the service describes it, or null. */
  get chosen() {
    return this.named(this.#group.querySelector("input:checked")?.value);
  }

  /** The avatar of a name, or null. */
  named(name) {
    return this.#all.find((avatar) => avatar.name === name) ?? null;
  }

  /** URL of an avatar's picture, once it is there. */
  picture(name) {
    return this.#pictures.get(name) ?? null;
  }

  /**
   * Ask the service which there are, and show them.
   *
   * @throws {Refusal}
   */
  async load() {
    const before = this.chosen?.name;
    const { avatars } = await this.#api.read("/v1/avatars");
    this.#all = avatars;
    this.#group.replaceChildren(...avatars.map((avatar) => this.#choice(avatar)));
    const usable = avatars.filter((avatar) => avatar.usable);
    const first = usable.find((avatar) => avatar.name === before) ?? usable[0];
    for (const input of this.#group.querySelectorAll("input")) input.checked = input.value === first?.name;
    this.onchoice();
  }

  #choice(avatar) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "avatar", value: avatar.name, disabled: !avatar.usable });
    const picture = document.createElement("img");
    Object.assign(picture, { alt: "", hidden: true });
    const name = document.createElement("span");
    name.textContent = label.title = avatar.name;
    label.className = "avatar";
    label.append(input, picture, name);
    if (!avatar.usable) {
      const reason = document.createElement("small");
      reason.textContent = avatar.reason ?? "It cannot be used.";
      label.append(reason);
    }
    if (avatar.width) this.#paint(avatar.name, picture);
    return label;
  }

  async #paint(name, picture) {
    if (!this.#pictures.has(name)) {
      try {
        const url = URL.createObjectURL(await this.#api.blob(avatarPath(name, "thumbnail")));
        this.#pictures.set(name, url);
      } catch {
        return; // it can be chosen by its name
      }
    }
    picture.src = this.#pictures.get(name);
    picture.hidden = false;
    if (this.chosen?.name === name) this.onchoice();
  }
}
