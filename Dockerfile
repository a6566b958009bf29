# The images of ImCluster: imserver, operator and webchat, from one file; `docker build --target imserver .`
# Dependencies come from hashed lists, code from wheels; no compiler, pip or cache is in what runs.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python3 -m venv --system-site-packages /tools
COPY requirements/build.txt requirements/
RUN /tools/bin/python -m pip install --quiet --require-hashes -r requirements/build.txt
COPY helper helper
RUN /tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels ./helper

# Each application has a virtual environment of its own without pip, compiled in advance: the file system is read-only.
FROM builder AS imserver-build
COPY requirements/server.txt requirements/
RUN python3 -m venv --without-pip /app \
    && python3 -m pip --python /app/bin/python install --quiet --require-hashes --only-binary :all: -r requirements/server.txt
COPY imserver imserver
RUN /tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels ./imserver \
    && python3 -m pip --python /app/bin/python install --quiet --no-deps --no-index /wheels/*.whl \
    && /app/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app/lib

FROM builder AS operator-build
COPY requirements/operator.txt requirements/
RUN python3 -m venv --without-pip /app \
    && python3 -m pip --python /app/bin/python install --quiet --require-hashes --only-binary :all: -r requirements/operator.txt
COPY operator operator
RUN /tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels ./operator \
    && python3 -m pip --python /app/bin/python install --quiet --no-deps --no-index /wheels/*.whl \
    && /app/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app/lib

FROM builder AS webchat-build
COPY requirements/webchat.txt requirements/
RUN python3 -m venv --without-pip /app \
    && python3 -m pip --python /app/bin/python install --quiet --require-hashes --only-binary :all: -r requirements/webchat.txt \
    && python3 -m pip --python /app/bin/python install --quiet --no-deps --no-index /wheels/*.whl
COPY examples/webchat /app/webchat/examples/webchat
COPY clients/js /app/webchat/clients/js
RUN /app/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app/lib /app/webchat

FROM ${PYTHON_IMAGE} AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
# The base brings a pip of its own, python's or Debian's, which nothing here needs. It stands before the labels because
# buildah compares build arguments only where something is run: else it may take the labels of another version.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/pip* /usr/local/lib/python3.*/ensurepip \
    /usr/bin/pip* /usr/lib/python3/dist-packages/pip* /usr/lib/python3.*/ensurepip
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1
LABEL org.opencontainers.image.vendor="ImCluster" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A number, so that runAsNonRoot can be checked without a look into /etc/passwd.
USER 10001:10001

FROM base AS imserver
LABEL org.opencontainers.image.title="imserver" \
      org.opencontainers.image.description="Holds the WebSockets of an ImCluster"
COPY --from=imserver-build /app /app
EXPOSE 6001 9600
ENTRYPOINT ["/app/bin/python", "-m", "imserver"]

FROM base AS operator
LABEL org.opencontainers.image.title="imcluster-operator" \
      org.opencontainers.image.description="Runs ImClusters on Kubernetes"
COPY --from=operator-build /app /app
EXPOSE 9600
ENTRYPOINT ["/app/bin/python", "-m", "imoperator"]

FROM base AS webchat
LABEL org.opencontainers.image.title="imcluster-webchat" \
      org.opencontainers.image.description="The demo chat of ImCluster"
COPY --from=webchat-build /app /app
WORKDIR /app/webchat
EXPOSE 5000
ENTRYPOINT ["/app/bin/python", "-m", "examples.webchat"]
