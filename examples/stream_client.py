"""Let a face of `musetalk serve` speak a WAV, and keep its pictures.

    python stream_client.py SOUND.wav FOLDER

It needs `pip install 'websockets>=15'`. The sound is sent at once, as a synthesiser gives it, in a thread of
its own: a long one waits for its room while pictures come. Meanwhile no ping is answered, so none is sent. A
token is taken from the environment variable MUSETALK_TOKEN, the service's address from MUSETALK_URL.
"""

import contextlib
import json
import os
import struct
import sys
import threading
import wave
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

url = os.environ.get("MUSETALK_URL", "ws://127.0.0.1:2160/v1/stream")
token = os.environ.get("MUSETALK_TOKEN")
headers = {"Authorization": f"Bearer {token}"} if token else None
folder = Path(sys.argv[2])
folder.mkdir(exist_ok=True)


def speak(sound: wave.Wave_read, socket: ClientConnection) -> None:
    """Send all of the sound, and that it is complete."""
    with contextlib.suppress(ConnectionClosed):  # whoever reads is told why
        while block := sound.readframes(8000):
            socket.send(block)
        socket.send(json.dumps({"type": "end"}))


with (
    wave.open(sys.argv[1]) as sound,
    connect(url, additional_headers=headers, ping_interval=None) as socket,
):
    hello = {
        "type": "hello",
        "avatar": "demo",
        "sample_rate": sound.getframerate(),
        "channels": sound.getnchannels(),
    }
    socket.send(json.dumps(hello))
    threading.Thread(target=speak, args=(sound, socket), daemon=True).start()
    for message in socket:
        if isinstance(message, str):  # an event: ready, speaking, segment_finished, closed ...
            print(message)
            if json.loads(message)["type"] == "segment_finished":
                socket.send(json.dumps({"type": "close"}))
            continue
        (length,) = struct.unpack_from("<I", message)
        frame = json.loads(message[4 : 4 + length])
        picture = message[4 + length :][: frame["picture"]]
        if picture:
            (folder / f"{frame['index']:06}.jpg").write_bytes(picture)
