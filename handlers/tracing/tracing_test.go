package tracing

import (
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTracingThatIsOffCostsNothing(t *testing.T) {
	var off *Tracer
	r := httptest.NewRequest("POST", "/rooms/a/events", nil)
	r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if n := testing.AllocsPerRun(1000, func() {
		r, span := off.Request(r, "/rooms/{room}/events")
		_, done := off.Step(r.Context(), "append", "a")
		if off.Carried(r.Context()) != "" {
			t.Error("an event carries a trace")
		}
		done(nil)
		span.Ended(201, "")
	}); n != 0 {
		t.Errorf("%v allocations for a publication", n)
	}
	if err := off.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotSampledIsNotCarried(t *testing.T) {
	tracer, err := Open(t.Context(), Options{Endpoint: "http://127.0.0.1:1", Sample: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tracer.Close() }() // nobody is there
	for parent, want := range map[string]bool{
		"": false, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00": false,
		"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01": false,
	} {
		r := httptest.NewRequest("POST", "/rooms/a/events", nil)
		r.Header.Set("Traceparent", parent)
		r, span := tracer.Request(r, "/rooms/{room}/events")
		if got := tracer.Carried(r.Context()); (got != "") != want {
			t.Errorf("with the header %q an event carries %q", parent, got)
		}
		span.Ended(201, "")
	}
}

func TestAnEndpointIsAURLWithoutSecrets(t *testing.T) {
	for _, wrong := range []string{"127.0.0.1:4318", "ftp://x", "http://user:password@x", "http://x?key=secret", "http://"} {
		if tracer, err := Open(t.Context(), Options{Endpoint: wrong}); err == nil {
			t.Errorf("%q is taken", wrong)
			_ = tracer.Close()
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "password") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}
