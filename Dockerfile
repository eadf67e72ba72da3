# The server for a laptop or CI, without a GPU and without NVIDIA's image: the pip-installed Triton, ONNX Runtime.
#   docker build -t inference .
#   docker run --rm -it --init --shm-size 256m -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 \
#       -v "$PWD/model_repository:/models:ro" inference
# or deploy/compose.cpu.yaml. docs/how-to/containers.md
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS made
WORKDIR /app
# What rarely changes comes first: packages by the locks, then what is made of them and of ours.
COPY requirements.lock ./
RUN python3 -m venv /opt/deploy \
    && /opt/deploy/bin/pip install --no-cache-dir --constraint requirements.lock \
        cryptography matplotlib model-signing nvidia-ml-py pillow prometheus-client psutil pyopenssl rich "tritonclient[grpc,http]"
COPY deploy/server.lock deploy/
RUN /opt/deploy/bin/pip download --no-cache-dir --no-deps --dest /wheels --requirement deploy/server.lock
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
