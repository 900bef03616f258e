# The orchestrator for ECS Fargate, x86-64 or ARM64:  docker build --platform linux/arm64 --tag gpu-orchestrator .
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN ["python", "-m", "venv", "/opt/orchestrator"]
WORKDIR /build
# In a layer of its own: it changes with the lock, not with each commit.
COPY requirements-orchestrator.lock ./
RUN ["/opt/orchestrator/bin/python", "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", \
     "--only-binary=:all:", "--require-hashes", "--no-deps", "--requirement", "requirements-orchestrator.lock"]
COPY LICENSE pyproject.toml README.md ./
COPY lib lib
COPY services services
RUN ["/opt/orchestrator/bin/python", "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", \
     "--no-index", "--no-build-isolation", "--no-deps", "."]

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/orchestrator /opt/orchestrator
# By number, so that `runAsNonRoot` and its like can tell without reading /etc/passwd.
USER 10001:10001
WORKDIR /
# On all interfaces it refuses to start without API_KEYS.
ENV HOST=0.0.0.0 \
    LOG_FORMAT=json \
    PORT=8080 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
  CMD ["/opt/orchestrator/bin/python", "-c", "import os, urllib.request as http; http.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=4)"]
ENTRYPOINT ["/opt/orchestrator/bin/gpu-orchestrator"]
