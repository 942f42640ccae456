# A server for runs. The image holds the program alone; runs are mounted, keys come as a secret.
#
#   docker build -t l2d .
#   docker run --init --stop-timeout 40 --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 --user $(id -u):$(id -g) \
#       -v $PWD/runs/shop:/runs/shop -v $PWD/keys.toml:/run/secrets/l2d-keys:ro l2d

FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/l2d
ENV PATH=/opt/l2d/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
# torch first and alone: the usual index serves one with 3 GB of CUDA libraries.
RUN pip install --no-deps -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install -c constraints.txt '.[serve]'

FROM python:3.11-slim
COPY --from=build /opt/l2d /opt/l2d
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin l2d
USER 10001:10001
# Nothing is written outside of /tmp and the runs, and nothing is fetched. One thread: see docs/serving.md on sizing.
ENV PATH=/opt/l2d/bin:$PATH HOME=/tmp HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
VOLUME ["/runs"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
# No shell in between: the signal to stop reaches the server, which answers what it has accepted and ends.
ENTRYPOINT ["l2d"]
CMD ["serve", "/runs/shop", "--host", "0.0.0.0", "--port", "8000", "--keys", "/run/secrets/l2d-keys"]
