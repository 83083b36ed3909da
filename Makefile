# What a developer types. `make` alone lists it; .ci/run is what decides.
.DEFAULT_GOAL := help
TOOLS := $(CURDIR)/.tools/bin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build both programs into bin/
	CGO_ENABLED=0 go build -tags grpcnotrace -o bin/ ./cmd/...

.PHONY: test
test: ## run the tests with the race detector
	go test -race ./...

.PHONY: lint
lint: tools ## run all linters, for Go and for the protocol
	gofmt -l .
	$(TOOLS)/golangci-lint run
	$(TOOLS)/buf lint

.PHONY: generate
generate: tools ## generate the Go code of the protocol
	$(TOOLS)/buf format -w
	$(TOOLS)/buf generate

.PHONY: tools
tools: ## install the development tools into .tools/bin
	@tools/install

.PHONY: package
package: ## build a Debian package of the current commit into bin/
	tools/package

.PHONY: ci
ci: ## run everything that must pass before a change lands
	.ci/run
