# One image for every role: broker, worker and client differ by their command only.
#
#   docker build -t evener:local .
#   docker build -t evener:local --build-arg BASE=registry.example/python:3.13-slim .
#
# Without a package index: put wheels (pip download) into a folder wheelhouse/ beside this file. When
# it has any, nothing else is asked. Plain instructions only, so that every builder can run them.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build

# Older builders leave this stage behind without a name:
#   docker image prune --filter label=org.opencontainers.image.title=evener-build
LABEL org.opencontainers.image.title="evener-build"

# What pip installs stays below /opt/evener, at the same path in both stages. pip itself does not.
RUN python -m venv /opt/build && python -m venv --without-pip /opt/evener
WORKDIR /src

# The pattern also matches when the folder does not exist; the other file keeps COPY content.
COPY pyproject.toml wheelhouse* /src/wheelhouse/
RUN if ls wheelhouse/*.whl >/dev/null 2>&1; then \
        printf '[global]\nno-index = true\nfind-links = /src/wheelhouse\n' >/etc/pip.conf; \
    fi

# Dependencies first: they change seldom, and their layer is kept when only the source changes.
RUN python -c 'import tomllib; \
project = tomllib.load(open("wheelhouse/pyproject.toml", "rb"))["project"]; \
print(*project["dependencies"], sep="\n")' >requirements.txt && \
    /opt/build/bin/pip --python /opt/evener/bin/python --disable-pip-version-check \
        install --no-cache-dir -r requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY wire wire
COPY broker broker
COPY client client
COPY worker worker
RUN /opt/build/bin/pip --python /opt/evener/bin/python --disable-pip-version-check \
        install --no-cache-dir --no-deps .


FROM ${BASE}

LABEL org.opencontainers.image.title="evener" \
      org.opencontainers.image.description="A pool of Python workers on one or many hosts, over ZeroMQ" \
      org.opencontainers.image.licenses="MIT"

COPY --from=build /opt/evener /opt/evener

# The user has no entry in /etc/passwd, so it needs a HOME. Python finds modules of yours in /app.
ENV PATH=/opt/evener/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /app
# Where a broker's journal may be; a volume mounted here gets this owner.
RUN mkdir -m 700 /var/lib/evener && chown 10001 /var/lib/evener
USER 10001

# SIGTERM drains: running tasks end, the rest goes back to the broker.
STOPSIGNAL SIGTERM
EXPOSE 7450
ENTRYPOINT ["evener"]
CMD ["--help"]
