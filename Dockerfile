# The server for a laptop or CI, without a GPU and without NVIDIA's image: the pip-installed Triton, ONNX Runtime.
#   docker build -t inference .
#   docker run --rm -it --init --shm-size 256m -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 \
#       -v "$PWD/model_repository:/models:ro" inference
# or deploy/compose.cpu.yaml. docs/how-to/containers.md
# First `make pin-images`: it writes the digest of the image that this one stands on into the next line.
ARG PYTHON=python:3.11-slim-bookworm@run-make-pin-images

FROM ${PYTHON} AS made
ARG PYTHON
# A tag can be moved, the digest cannot; an image of this machine is whoever's made it.
RUN case "${PYTHON}" in *@sha256:*|localhost/*) ;; *) \
        echo "error: ${PYTHON} has no digest. Hint: make pin-images, or localhost/IMAGE for one of your own" >&2; exit 1 ;; \
    esac
WORKDIR /app
# What rarely changes comes first: packages by the locks, then what is made of them and of ours.
COPY deploy/commands.lock deploy/server.lock deploy/
RUN python3 -m venv /opt/deploy \
    && /opt/deploy/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement deploy/commands.lock \
    && /opt/deploy/bin/pip download --no-cache-dir --require-hashes --no-deps --dest /wheels \
        --requirement deploy/server.lock
COPY cli cli
COPY contracts contracts
COPY deploy deploy
ENV SERVER_ENVIRONMENT=/opt/server MODEL_LAYERS=/opt/layers
# The server's own environment, and byte code that a read-only file system cannot be given later.
RUN PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels \
        /opt/deploy/bin/python -c "from deploy.triton import environment; environment.pip_installed(print)" \
    && /opt/deploy/bin/python -m compileall -q cli contracts deploy
# Packages that models have of their own, as their requirements.lock names them: `docker build` again when one changes.
RUN --mount=type=bind,source=model_repository,target=/tmp/model_repository \
    mkdir --parents /opt/layers \
    && /opt/deploy/bin/python -m deploy environments build --repository /tmp/model_repository

FROM ${PYTHON}
WORKDIR /app
RUN groupadd --gid 1000 triton-server && useradd --uid 1000 --gid 1000 --create-home triton-server
COPY --from=made /opt/deploy /opt/deploy
COPY --from=made /opt/server /opt/server
COPY --from=made /opt/layers /opt/layers
COPY --from=made /app /app
ENV SERVER_ENVIRONMENT=/opt/server MODEL_LAYERS=/opt/layers MODEL_REPOSITORY=/models ARTIFACTS_DIR=/tmp/artifacts
USER 1000:1000
EXPOSE 8000 8001 8002
# Loading and warming up takes the start period; after that, three failures in a row mean it is broken.
HEALTHCHECK --start-period=120s --interval=10s --timeout=5s --retries=3 \
    CMD ["/opt/deploy/bin/python", "-m", "deploy.triton.health"]
ENTRYPOINT ["/opt/deploy/bin/python", "-m", "deploy"]
CMD ["up", "--host=0.0.0.0", "--log-to-stdout", "--device=cpu"]
