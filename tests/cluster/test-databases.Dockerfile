# Database servers to back up: PostgreSQL 17 and 15, MariaDB, Valkey. `serve` starts one.
# PostgreSQL 15 is that of Debian 12, whose keys are among those of Debian 13.
ARG BASE=docker.io/library/debian:trixie-slim
FROM ${BASE}
# Without what no server needs: LLVM, by which PostgreSQL may compile expressions, Perl, and names of languages.
RUN sed 's/trixie/bookworm/' /etc/apt/sources.list > /etc/apt/sources.list.d/bookworm.list \
 && printf 'Package: *\nPin: release n=bookworm*\nPin-Priority: 50\n' > /etc/apt/preferences.d/bookworm \
 && mkdir /etc/postgresql-common && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --option Dpkg::Options::=--force-confold \
      postgresql-17 postgresql-15 mariadb-server-core mariadb-client-core valkey-server \
 && rm -rf /usr/lib/*/libLLVM* /usr/lib/*/libz3* /usr/lib/postgresql/*/lib/bitcode /usr/lib/postgresql/*/lib/llvmjit* \
      /usr/lib/*/perl /usr/share/perl /usr/share/i18n \
      /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log \
 && useradd --uid 10001 --no-create-home databases \
 && install --directory --owner databases --group databases --mode 1777 /run/databases /var/lib/data \
 && rm -rf /run/postgresql && ln -s databases /run/postgresql && ln -s databases /run/mysqld
ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --chmod=0755 serve /usr/local/bin/serve
ENTRYPOINT ["/usr/local/bin/serve"]
