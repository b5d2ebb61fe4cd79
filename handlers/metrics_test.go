package handlers

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"sluice/fanout"
)

// families gives all metrics of a gateway, by name.
func families(t *testing.T, g *Gateway) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewRegistry()
	g.register(registry)
	list, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*dto.MetricFamily{}
	for _, family := range list {
		byName[family.GetName()] = family
	}
	return byName
}

// everyMetric gives the metrics of a gateway on Redis, which has them all. It
// does not run, and Redis is not asked.
func everyMetric(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	log, err := fanout.OpenRedis(fanout.RedisOptions{URL: "redis://127.0.0.1:1", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	g := NewGateway(fanout.NewHub(log, fanout.Options{Logger: quiet}), Config{Logger: quiet, Version: "v1.2.3"})
	g.Guard(nil, 1000)
	g.problems.count(errInternal.kind)
	g.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/healthz", nil))
	return families(t, g)
}

func TestMetricsAreNamedAsPrometheusWants(t *testing.T) {
	var ours []*dto.MetricFamily
	for _, family := range everyMetric(t) {
		ours = append(ours, family)
	}
	problems, err := promlint.NewWithMetricFamilies(ours).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestLatenciesHaveBothFormsOfHistogram(t *testing.T) {
	for name, family := range everyMetric(t) {
		if family.GetType() != dto.MetricType_HISTOGRAM || name[:len("sluice_")] != "sluice_" {
			continue
		}
		h := family.GetMetric()[0].GetHistogram()
		if h.Schema == nil || len(h.GetBucket()) == 0 {
			t.Errorf("%s has schema %v and %d fixed buckets, want both", name, h.Schema, len(h.GetBucket()))
		}
	}
}

// value gives the one metric of a family with these labels' values, 0 if there is none.
func value(t *testing.T, g *Gateway, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range families(t, g)[name].GetMetric() {
		var got []string
		for _, label := range m.GetLabel() {
			got = append(got, label.GetValue())
		}
		if slices.Equal(got, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return 0
}

// awaitValue waits until a metric is as large: a writer counts behind its write.
func awaitValue(t *testing.T, g *Gateway, want float64, name string, labels ...string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	every := time.NewTicker(time.Millisecond)
	defer every.Stop()
	for {
		got := value(t, g, name, labels...)
		if got == want {
			return
		}
		if got > want {
			t.Fatalf("%s%q is %v, want %v", name, labels, got, want)
		}
		select {
		case <-every.C:
		case <-timeout:
			t.Fatalf("%s%q is %v, and never became %v", name, labels, got, want)
		}
	}
}

func TestDeliveryIsTimedOnceForAllStreamsOfARoom(t *testing.T) {
	g := newTestGateway(t, Config{})
	g.publish("a", "before anybody listens")
	var streams []*listener
	for range 3 {
		l := g.listen("/rooms/a/events")
		l.opened()
		streams = append(streams, l)
	}
	g.publish("a", "first")
	for _, l := range streams {
		l.block()
	}
	awaitValue(t, g.g, 1, "sluice_delivery_latency_seconds")

	// What is caught up with was not delayed by anybody here, nor is it told
	// when others come.
	late := g.listen("/rooms/a/events?after=earliest")
	late.opened()
	late.block()
	late.block()
	filtered := g.listen("/events?room=a&room=b&last=2")
	filtered.opened()
	filtered.block()
	g.publish("a", "second")
	for _, l := range append(streams, late) {
		l.block()
	}
	awaitValue(t, g.g, 2, "sluice_delivery_latency_seconds")
	awaitValue(t, g.g, 3, "sluice_publish_duration_seconds")
}

func TestDeliveryIsTimedWhereConnectionsCannotBeTakenOver(t *testing.T) {
	g := newTestGateway(t, Config{})
	server := httptest.NewUnstartedServer(g.g.Handler())
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	over := &testGateway{Server: server, t: t, hub: g.hub, g: g.g}
	first, second := over.listen("/rooms/a/events"), over.listen("/rooms/a/events")
	first.opened()
	second.opened()
	if first.resp.ProtoMajor != 2 {
		t.Fatalf("the stream came over %s", first.resp.Proto)
	}
	g.publish("a", "one")
	first.block()
	second.block()
	awaitValue(t, g.g, 1, "sluice_delivery_latency_seconds")
}

func TestRequestsAreCountedByRoute(t *testing.T) {
	g := newTestGateway(t, Config{})
	g.publish("some-room", "x")
	g.listen("/rooms/some-room/events").opened()
	g.do("GET", "/rooms/some-room/events?limit=0", "", "Accept", "application/json")
	g.do("GET", "/no/such/thing", "")
	g.do("BREW", "/rooms/some-room/events", "")
	const name = "sluice_requests_total"
	for _, want := range [][]string{
		{"POST", "/rooms/{room}/events", "2xx"},
		{"GET", "/rooms/{room}/events", "2xx"},
		{"GET", "/rooms/{room}/events", "4xx"},
		{"GET", "other", "4xx"},
		{"other", "other", "4xx"},
	} {
		if got := value(t, g.g, name, want...); got != 1 {
			t.Errorf("%s%q is %v, want 1; there is %v", name, want, got, families(t, g.g)[name])
		}
	}
}

func TestLimitsAreCounted(t *testing.T) {
	g := newTestGateway(t, Config{Limits: Limits{PublishRate: 0.01, PublishBurst: 1}})
	g.publish("a", "x")
	if a := g.do("POST", "/rooms/a/events", "y"); a.StatusCode != http.StatusTooManyRequests {
		t.Fatalf("the second event is answered by %s", a.Status)
	}
	if got := value(t, g.g, "sluice_limits_hit_total", "publish-rate"); got != 1 {
		t.Errorf("hits: %v, want 1", got)
	}
	if got := value(t, g.g, "sluice_limits_hit_total", "new-rooms-rate"); got != 0 {
		t.Errorf("hits of a limit that nobody met: %v", got)
	}
}

func TestMetricsAreServedToOldAndNewServers(t *testing.T) {
	g := newTestGateway(t, Config{Version: "v1.2.3"})
	admin := httptest.NewServer(g.g.AdminHandler())
	defer admin.Close()
	for accept, want := range map[string]string{
		"text/plain": `sluice_build_info{version="v1.2.3"} 1`,
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": "sluice_build_info",
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", admin.URL+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := admin.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !bytes.Contains(body, []byte(want)) {
			t.Errorf("asked for %s, metrics lack %s (%v)", accept, want, err)
		}
	}
}

func TestResumesAreCountedByWhereTheyAreServed(t *testing.T) {
	g := newTestGateway(t, Config{})
	live := g.listen("/rooms/a/events")
	live.opened()
	first := g.publish("a", "0")
	g.publish("a", "1")
	g.listen("/rooms/a/events?after=" + first).opened()
	awaitValue(t, g.g, 1, "sluice_resumes_total", "ring")
	old := g.publish("c", "0")
	for range 40 {
		g.publish("c", strings.Repeat("x", 60<<10)) // which do not fit into a ring
	}
	g.listen("/rooms/c/events").opened()
	g.listen("/rooms/c/events?after=" + old).opened()
	awaitValue(t, g.g, 1, "sluice_resumes_total", "log")
	awaitValue(t, g.g, 1, "sluice_resumes_total", "ring")
	if got, want := value(t, g.g, "sluice_published_bytes_total"), float64(3+40*60*1024); got != want {
		t.Errorf("%v bytes were published, want %v", got, want)
	}
}

func TestMembersAreCountedAndNotNamed(t *testing.T) {
	g := newTestGateway(t, Config{})
	first, second := g.listen("/rooms/a/events?presence=ann"), g.listen("/rooms/a/events?presence=ann")
	ids := []string{first.opened(), second.opened()}
	g.listen("/rooms/a/events?presence=bob").opened()
	awaitValue(t, g.g, 2, "sluice_members")
	awaitValue(t, g.g, 2, "sluice_member_joins_total")
	for _, id := range ids {
		if got := value(t, g.g, "sluice_member_leaves_total"); got != 0 {
			t.Errorf("%v have left, with a stream of theirs still open", got)
		}
		g.do("DELETE", "/streams/"+id, "")
	}
	awaitValue(t, g.g, 1, "sluice_member_leaves_total")
	awaitValue(t, g.g, 1, "sluice_members")
	for name, family := range families(t, g.g) {
		if text := family.String(); strings.Contains(text, `"ann"`) || strings.Contains(text, `"a"`) {
			t.Errorf("%s names a user or a room: %s", name, text)
		}
	}
}
