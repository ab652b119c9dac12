/** The microphone, and what to do where there is none. */

import { Refusal } from "./api.js";

const WANTED = { audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } };

const REASONS = {
  NotAllowedError: ["The browser refused the microphone.", "Allow it for this page, beside the address, and try again."],
  NotFoundError: ["There is no microphone.", "Connect one, or speak a file."],
  NotReadableError: ["The microphone gives no sound.", "Another program may be using it."],
};

/**
 * The microphone's track.
 *
 * @throws {Refusal}
 */
export async function openMicrophone() {
  if (!window.isSecureContext || !navigator.mediaDevices) {
    throw new Refusal(
      0,
      "Browsers give a microphone only to pages from https or from localhost.",
      "Open this page over https, or through a tunnel: ssh -L 2160:localhost:2160 HOST, then http://localhost:2160.",
    );
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia(WANTED);
    return stream.getAudioTracks()[0];
  } catch (error) {
    const [message, hint] = REASONS[error.name] ?? ["The microphone cannot be used.", error.message];
    throw new Refusal(0, message, hint);
  }
}
