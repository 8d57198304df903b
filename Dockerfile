# Base station and device in one file: `docker build --target bs .` or `--target device .`
# docs/deploy.md says how to run them. Built from the wheel, so that the image has no source.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim-bookworm AS device
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/draftlink-*.whl)[serve]" \
    && useradd --create-home --uid 1000 draftlink
USER 1000
ENV ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
ENTRYPOINT ["draftlink"]
CMD ["--help"]

FROM python:${PYTHON}-slim-bookworm AS bs
# The CPU build of PyTorch. For CUDA: --build-arg TORCH=https://download.pytorch.org/whl/cu128
ARG TORCH=https://download.pytorch.org/whl/cpu
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --index-url "${TORCH}" "torch>=2.6" \
    && pip install --no-cache-dir "$(echo /wheels/draftlink-*.whl)[bs,gguf]" \
    && useradd --create-home --uid 1000 draftlink
USER 1000
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8765/healthz', timeout=3)"]
ENTRYPOINT ["draftlink"]
CMD ["bs", "--help"]
