# deepscan as an ordinary user on a read-only root: evidence in, results out, no network.
#
#   docker build -t deepscan .
#   docker build -t deepscan --build-arg INDEX=ADDRESS .           # torch for processors alone, or another CUDA
#   docker run --rm --read-only --network none --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -v "$PWD/evidence:/in:ro" -v "$PWD/results:/out" deepscan detect /in/clip.mp4 --out /out
#
# From pip's own index torch comes with CUDA, and computes on processors too; PyTorch's page on installation names
# the index of each of its builds. CLIP's base is fetched while the image is built (WEIGHTS=0 leaves it out: mount
# a cache at /weights then). The decoder's confinement needs a kernel with Landlock; `docker run ... deepscan
# doctor` says whether it holds.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

ARG INDEX=
ARG WEIGHTS=1

ENV PYTHONDONTWRITEBYTECODE=1 \
    DEEPSCAN_CACHE=/weights \
    MPLCONFIGDIR=/tmp/matplotlib \
    HOME=/tmp

WORKDIR /build
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY deepscan deepscan
COPY weights weights
# torch and torchvision of one index: builds of two do not work together.
RUN pip install --no-cache-dir --compile ${INDEX:+--index-url "$INDEX"} torch torchvision \
 && pip install --no-cache-dir --compile . \
 && rm -rf /build/*

RUN useradd --system --uid 10001 --no-create-home examiner \
 && mkdir -p /in /out /weights \
 && if [ "$WEIGHTS" = 1 ]; then deepscan weights fetch; fi \
 && chown -R examiner /out /weights

USER examiner
WORKDIR /out
VOLUME ["/in", "/out"]
ENTRYPOINT ["deepscan"]
CMD ["--help"]
