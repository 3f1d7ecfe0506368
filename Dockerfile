# For a CPU, and with --build-arg EXTRA=cuda or EXTRA=tpu for those:
#   docker build -t lt-noisy . && docker run --rm lt-noisy --list losses
#   mkdir -p runs && docker run --rm --gpus=all -v "$PWD/runs:/work/runs" \
#       -v "$HOME/tensorflow_datasets:/home/lt_noisy/tensorflow_datasets:ro" lt-noisy:cuda --config=configs/cifar100_lt_noise.py
# The data are prepared outside (docs/pods.md), and user 1000 writes into `runs`.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS installed
ARG EXTRA=""
COPY setup.py pyproject.toml README.md LICENSE /source/
COPY lt_noisy /source/lt_noisy
RUN python -m venv /opt/lt_noisy
RUN --mount=type=cache,target=/root/.cache/pip /opt/lt_noisy/bin/pip install "/source${EXTRA:+[$EXTRA]}"

FROM python:${PYTHON}-slim
COPY --from=installed /opt/lt_noisy /opt/lt_noisy
COPY configs /work/configs
RUN useradd --uid 1000 --create-home lt_noisy && chown lt_noisy /work
ENV PATH=/opt/lt_noisy/bin:$PATH
USER 1000
WORKDIR /work
ENTRYPOINT ["lt-noisy"]
