# What stands in for NVIDIA's Triton image, as far as Dockerfile.triton asks anything of it: `root` is put together by
# tests/images/standin.py. Without CUDA, TensorRT or the native backends; never published.
ARG DEBIAN
FROM ${DEBIAN}
COPY root /
RUN ldconfig \
    && groupadd --gid 1000 triton-server \
    && useradd --uid 1000 --gid 1000 --create-home triton-server
ENV PATH=/opt/tritonserver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]
