"""Let a face of `musetalk serve` speak a WAV, and keep its pictures.

    python stream_client.py SOUND.wav FOLDER

It needs `pip install websockets`. The sound is sent at once, as a synthesiser gives it; a token is taken from
the environment variable MUSETALK_TOKEN, the service's address from MUSETALK_URL.
"""

import json
import os
import struct
import sys
import wave
from pathlib import Path

from websockets.sync.client import connect

url = os.environ.get("MUSETALK_URL", "ws://127.0.0.1:2160/v1/stream")
token = os.environ.get("MUSETALK_TOKEN")
headers = {"Authorization": f"Bearer {token}"} if token else None
folder = Path(sys.argv[2])
folder.mkdir(exist_ok=True)
with wave.open(sys.argv[1]) as sound, connect(url, additional_headers=headers) as socket:
    hello = {
        "type": "hello",
        "avatar": "demo",
        "sample_rate": sound.getframerate(),
        "channels": sound.getnchannels(),
    }
    socket.send(json.dumps(hello))
    while block := sound.readframes(8000):
        socket.send(block)
    socket.send(json.dumps({"type": "end"}))
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
