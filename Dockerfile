# The image of every node, of the search and of the live page; compose.yaml and launch/cluster/kubernetes use it. From the checkout:
#
#     docker build -t hcpr_tune:0.2.0 .
#
# Python, Ray and torch must have the same versions on all nodes: one image with pinned versions sees to that. torch brings its own CUDA
# libraries, several gigabytes, so the base needs none; the driver is the machine's.
FROM python:3.11-slim

# Ray's health checks in Kubernetes call wget; procps is for whoever opens a shell. Debian keeps one version of each.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget procps \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --user-group ray \
    # A volume that is mounted here first gets this owner: the token, and what all nodes share.
    && install -d -o ray -g ray -m 700 /home/ray/.ray \
    && install -d -o ray -g ray /shared /shared/results

WORKDIR /opt/hcpr_tune
# What the package needs comes first: it is large, and changes rarely.
COPY constraints.txt pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" >requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
# Nothing else of the checkout: no results, no data (.dockerignore).
COPY README.md LICENSE ./
COPY hcpr_tune hcpr_tune
COPY search_spaces search_spaces
COPY launch/cluster launch/cluster
RUN pip install --no-cache-dir --no-deps .

# By its number, so that Kubernetes sees that it is not root.
USER 1000:1000
WORKDIR /home/ray
ENV RAY_USAGE_STATS_ENABLED=0
CMD ["hcpr_tune", "--help"]
