"""Exit code 0 while the service of this container answers; what the container's health check runs."""

import http.client
import os
import sys

LIMIT_S = 4.0


def status(port: int) -> int | str:
    """What `/healthz` answers: a status, or why there was none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


if __name__ == "__main__":
    answer = status(int(os.environ["MUSETALK_PORT"]))
    print(answer)  # docker inspect shows it
    sys.exit(answer != 200)
