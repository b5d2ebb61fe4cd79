# A gateway in an image that holds nothing else: docker build -t sluice .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=${VERSION}" -o /sluice ./cmd/sluice

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /sluice /sluice
# Nobody in particular; the gateway writes no files.
USER 65532:65532
# Inside a container the world is behind 0.0.0.0; the gateway says how open it is.
ENV SLUICE_LISTEN=0.0.0.0:8080 SLUICE_ADMIN=127.0.0.1:8081
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s CMD ["/sluice", "healthcheck", "http://127.0.0.1:8080/readyz"]
ENTRYPOINT ["/sluice"]
CMD ["serve"]
