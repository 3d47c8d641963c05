# drctl with the tools that it runs; how to use it: docs/docker.md.
#   docker build -t drctl .
# From a program that is built already, where the builder cannot get at the image of Rust:
#   docker build -t drctl --target prebuilt .        takes target/release/drctl

FROM debian:bookworm-slim AS tools
# Majors of PostgreSQL's client programs: the one of your server, for a newer pg_restore speaks of settings that an older server does not know.
ARG POSTGRES="13 14 15 16 17 18"
# From PostgreSQL's own archive. auto: where it cannot be reached, the one client that Debian has; yes: fail then; no: Debian's.
ARG PGDG=auto
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates libcap2-bin openssh-client redis-server tini; \
    clients=postgresql-client; \
    if [ "$PGDG" != no ]; then \
      . /etc/os-release; \
      cd /tmp; apt-get download postgresql-common; \
      dpkg --fsys-tarfile postgresql-common_*.deb | tar -xO ./usr/share/postgresql-common/pgdg/apt.postgresql.org.gpg > /usr/share/keyrings/pgdg.gpg; \
      rm postgresql-common_*.deb; cd /; \
      list=/etc/apt/sources.list.d/pgdg.list; \
      echo "deb [signed-by=/usr/share/keyrings/pgdg.gpg] https://apt.postgresql.org/pub/repos/apt $VERSION_CODENAME-pgdg main" > "$list"; \
      if apt-get update -o APT::Update::Error-Mode=any -o Dir::Etc::sourcelist="$list" -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 \
        -o Acquire::Retries=0 -o Acquire::https::Timeout=20; then \
        clients=$(printf 'postgresql-client-%s ' $POSTGRES); \
      elif [ "$PGDG" = auto ]; then \
        echo "PGDG cannot be reached: only Debian's own PostgreSQL client is in this image" >&2; rm "$list" /usr/share/keyrings/pgdg.gpg; \
      else \
        exit 1; \
      fi; \
    fi; \
    apt-get install -y --no-install-recommends $clients; \
    rm -rf /var/lib/apt/lists/*; \
    groupadd --gid 10001 drctl; \
    useradd --uid 10001 --gid 10001 --home-dir /var/lib/drctl --no-create-home --shell /usr/sbin/nologin drctl; \
    install -d -o drctl -g drctl -m 0700 /etc/drctl /var/lib/drctl /repository; \
    find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# Copies with rights that the container must have too, else the kernel does not start them: one reads every file, one gives restored files
# their owners. What they write is uid 10001's all the same: a run as root would leave what the next one cannot read.
RUN printf '%s\n' '#!/bin/sh -e' 'cd /usr/local/bin' 'chmod 0755 drctl' \
      'cp drctl drctl-read-all' 'setcap cap_dac_read_search=ep drctl-read-all' \
      'cp drctl drctl-restore' 'setcap cap_chown,cap_dac_override,cap_fowner,cap_fsetid=ep drctl-restore' \
      > /usr/local/sbin/privileged-copies; \
    chmod 0755 /usr/local/sbin/privileged-copies
ENV STATE_DIRECTORY=/var/lib/drctl
WORKDIR /etc/drctl
# The configuration with its keys; what this host knows of its runs.
VOLUME ["/etc/drctl", "/var/lib/drctl"]
# The first process of a container gets no signal that it does not wait for, and every orphan: that is tini, not drctl.
ENTRYPOINT ["tini", "--", "drctl"]
CMD ["agent"]

FROM tools AS prebuilt
COPY target/release/drctl /usr/local/bin/drctl
RUN privileged-copies
USER 10001:10001

FROM rust:1-slim-bookworm AS build
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY jobs jobs
RUN cargo build --release --locked --bin drctl

FROM tools
COPY --from=build /source/target/release/drctl /usr/local/bin/drctl
RUN privileged-copies
USER 10001:10001
