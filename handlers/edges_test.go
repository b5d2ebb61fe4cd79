package handlers

import (
	"strings"
	"testing"
)

func TestAKeyUsedOtherwiseInOneOfSeveralRoomsWritesToNone(t *testing.T) {
	for name, body := range map[string]struct{ contentType, text string }{
		"an event": {"text/plain", "y"},
		"a batch":  {"application/x-ndjson", `{"data":"a"}` + "\n" + `{"data":"y","key":"k"}`},
	} {
		g := newTestGateway(t, Config{})
		g.publish("used", "x", "Idempotency-Key", "k")
		a := g.do("POST", "/events?room=fresh&room=used", body.text, "Content-Type", body.contentType, "Idempotency-Key", "k")
		if a.StatusCode != 422 || a.json(t)["events"] != nil {
			t.Errorf("%s: %s %s", name, a.Status, a.body)
		}
		if page := g.page("/rooms/fresh/events"); len(page["events"].([]any)) != 0 {
			t.Errorf("%s was written to the other room: %v", name, page)
		}
	}
}

func TestDataMayBeAsDeepInABatchAsAlone(t *testing.T) {
	g := newTestGateway(t, Config{})
	for levels, want := range map[int]int{64: 201, 65: 400} {
		data := strings.Repeat("[", levels) + strings.Repeat("]", levels)
		if a := g.do("POST", "/rooms/lobby/events", data, "Content-Type", "application/json"); a.StatusCode != want {
			t.Errorf("%d levels: %s %s", levels, a.Status, a.body)
		}
		if a := g.do("POST", "/rooms/lobby/events", `{"data":`+data+`}`, "Content-Type", "application/x-ndjson"); a.StatusCode != want {
			t.Errorf("%d levels in a batch: %s %s", levels, a.Status, a.body)
		}
	}
}
