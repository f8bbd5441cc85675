# FOSP with everything it needs: the CPU by default, CUDA by arguments (docs/reference/python.md).
#   docker build -t fosp .
#   docker build -t fosp-cuda --build-arg BASE=nvidia/cuda:13.0.2-runtime-ubuntu24.04 \
#       --build-arg TORCH=cuda .
ARG BASE=debian:12-slim
FROM ${BASE}
ARG TORCH=cpu
ENV DEBIAN_FRONTEND=noninteractive NVIDIA_DRIVER_CAPABILITIES=all
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential git make python3 python3-dev python3-venv \
        libegl1 libgl1-mesa-dri libopengl0 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /fosp
COPY . .
RUN make setup TORCH="${TORCH}" PYTHON=python3
ENTRYPOINT [".venv/bin/python"]
CMD ["train.py"]
