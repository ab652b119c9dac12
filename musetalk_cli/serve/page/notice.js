/** What went wrong, in words, with a button for what can be done about it. */

const element = (id) => document.getElementById(id);

let shown = null;

/** Write a text where it changes: a live region is read out again whenever it is written. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/**
 * Show a refusal until it is closed or past (null).
 *
 * @param {Refusal | null} refusal
 * @param {{name: string, run: () => void} | null} action
 */
export function notify(refusal, action = null) {
  shown = refusal;
  element("notice").hidden = !refusal;
  setText(element("notice-error"), refusal?.message ?? "");
  setText(element("notice-hint"), refusal?.hint ?? "");
  element("notice-action").hidden = !action;
  if (action) setText(element("notice-action"), action.name);
  element("notice-action").onclick = () => {
    notify(null);
    action.run();
  };
}

/** Whether a refusal of a kind is shown. */
export const isShown = (kind) => shown instanceof kind;

element("notice-close").addEventListener("click", () => notify(null));
