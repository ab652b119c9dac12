# `musetalk serve` in a container; docs/deploy.md says how to build and use it.

# torch of PyPI brings all of CUDA 13.0 along, cuDNN too. So the smallest of NVIDIA's images will do: it says which
# driver is needed (580 or newer), and what of it the container gets. `runtime` would hold the libraries twice.
# For a machine without a GPU:
#   --build-arg BASE=ubuntu:24.04 --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG BASE=nvidia/cuda:13.0.3-base-ubuntu24.04

# hadolint ignore=DL3006
FROM ${BASE} AS python
# libgl1 and libglib2.0-0 are what OpenCV's wheel takes to be on every desktop; gcc, libc6-dev and python3-dev what
# Triton builds its launcher with when the first kernel is needed
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev libgl1 libglib2.0-0 \
        python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/musetalk
ENV PATH=/opt/musetalk/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Other extras of the project come in with EXTRAS, like serve,nvml,dwpose to prepare avatars in the container.
FROM python AS requirements
ARG EXTRAS=serve,nvml
WORKDIR /source
COPY docker/requirements.py pyproject.toml ./
RUN python requirements.py pyproject.toml "$EXTRAS" > requirements.txt

FROM python AS code
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY models/demo models/demo
COPY avatars/demo avatars/demo
COPY avatars/demo2 avatars/demo2
COPY musetalk_cli musetalk_cli
RUN pip install --no-deps --prefix /code .

FROM python
RUN groupadd --gid 10001 musetalk \
    && useradd --uid 10001 --gid 10001 --create-home --no-log-init musetalk \
    && install --directory --owner 10001 --group 10001 /models /avatars

# torch is gigabytes: this layer changes with a version of the dependencies, not with the code
ARG PIP_EXTRA_INDEX_URL=
COPY --from=requirements /source/requirements.txt /opt/musetalk/
COPY constraints.txt /opt/musetalk/
RUN pip install --constraint /opt/musetalk/constraints.txt \
    --requirement /opt/musetalk/requirements.txt

COPY --from=code /code /opt/musetalk
RUN pip check
COPY docker/start.py docker/healthy.py /opt/musetalk/

# The whole choice is in docs/deploy.md. The token is given to the container, never to the image.
ENV MUSETALK_MODELS=/models MUSETALK_AVATARS=/avatars MUSETALK_MODEL=v15 MUSETALK_PORT=2160
VOLUME ["/models", "/avatars"]
WORKDIR /home/musetalk
USER 10001:10001
EXPOSE 2160

# Weights may take half an hour to come; until the first success a failure counts as starting.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m CMD ["python", "/opt/musetalk/healthy.py"]

# start.py becomes the server, so the signal reaches it: sessions end, then the container does
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "/opt/musetalk/start.py"]
