package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthcheckGoesByTheStatus(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer server.Close()
	sluice(t, 0, "healthcheck", server.URL)
	status = http.StatusServiceUnavailable
	if _, stderr := sluice(t, 1, "healthcheck", server.URL); !strings.Contains(stderr, "503") {
		t.Errorf("it says %q", stderr)
	}
}
