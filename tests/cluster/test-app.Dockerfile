# An application to back up: a shell, coreutils, tar and extended attributes.
ARG BASE=docker.io/library/debian:trixie-slim
FROM ${BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends attr \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log
CMD ["/bin/sleep", "infinity"]
