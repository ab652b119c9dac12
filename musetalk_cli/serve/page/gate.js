/** The form that asks for the token. */

import { Refusal } from "./api.js";
import { notify, setText } from "./notice.js";

const dialog = document.getElementById("gate");
const input = document.getElementById("token");
const ENTER = { name: "Enter a token", run: () => dialog.showModal() };

export const isGateOpen = () => dialog.open;

/**
 * Ask for the token whenever the service wants one, or another.
 *
 * @param {Api} api
 * @param {() => void} ontoken Called when one was entered.
 */
export function guard(api, ontoken) {
  api.onunauthorized = () => {
    if (dialog.open) return;
    if (api.token) setText(document.getElementById("gate-text"), "This token was not accepted.");
    dialog.showModal();
  };
  document.getElementById("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close();
    api.token = input.value;
    input.value = "";
    notify(null);
    ontoken();
  });
  dialog.addEventListener("cancel", () => notify(new Refusal(401, "This service needs a token."), ENTER));
}
