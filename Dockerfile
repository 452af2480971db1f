# The ML backend and the `aku` command.  `--build-arg VARIANT=cuda` takes PyTorch with CUDA instead of the CPU build.
FROM python:3.11-slim-trixie

ARG VARIANT=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE \
    AKU_HOME=/workspace HOME=/tmp

# libgomp for PyTorch; PostgreSQL's client programs, of the server's release, for `aku backup`.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 postgresql-client-17 \
    && rm -rf /var/lib/apt/lists/*

# What changes rarely comes first.  See requirements/label-studio-ml.txt for why that package comes without its pins.
WORKDIR /opt/aku
COPY requirements/ requirements/
RUN if [ "$VARIANT" = cpu ]; then index="--index-url https://download.pytorch.org/whl/cpu"; fi \
    && pip install $index torch=="$(sed -n 's/^torch==//p' requirements/constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
RUN python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" \
        > /tmp/dependencies.txt \
    && pip install -c requirements/constraints.txt -r /tmp/dependencies.txt setuptools \
    && pip install --no-deps -r requirements/label-studio-ml.txt \
    && rm /tmp/dependencies.txt

COPY labeling_config.xml ./
COPY docs/annotator-guide.ja.md docs/
COPY examples/ examples/
COPY dialogue/ dialogue/
COPY exporters/ exporters/
COPY analysis/ analysis/
COPY ml_backend/ ml_backend/
COPY aku/ aku/
# Editable: the guide, the screen and the examples are found beside the code.
RUN pip install --no-deps --no-build-isolation --editable . && python -m compileall -q dialogue exporters analysis ml_backend aku

RUN groupadd --gid 10001 aku && useradd --uid 10001 --gid aku --home-dir /tmp --no-create-home aku \
    && install --directory --owner=aku --group=aku --mode=0700 /workspace
USER 10001:10001
WORKDIR /workspace
VOLUME /workspace
EXPOSE 9090
CMD ["aku", "backend", "--host", "0.0.0.0"]
