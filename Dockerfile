# One image for every service of docker-compose.yml; the command says which part it plays.

FROM python:3.12-slim AS build
WORKDIR /src
# No pip in the environment that is shipped: the builder's own pip installs into it from outside.
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml README.md LICENSE ./
COPY contracts contracts
COPY coordinator coordinator
COPY examples examples
COPY forebay forebay
COPY lua lua
COPY workers workers
RUN pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
    '.[run,mock,ops,proxy,uvloop]'

FROM python:3.12-slim
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# /app/out exists and is the user's own, so that a volume mounted there is born writable for it.
RUN useradd --create-home --uid 10001 forebay \
    && install --directory --owner=forebay --group=forebay /app/out
COPY --from=build /opt/venv /opt/venv
COPY examples /app/examples
WORKDIR /app
USER forebay
ENTRYPOINT ["forebay"]
