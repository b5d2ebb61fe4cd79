package e2e

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"sluice/fanout/redistest"
)

// span is what of a span is looked at, and which process it came from.
type span struct {
	name, trace, id, parent string
	node                    string
	attributes              map[string]string
	took                    time.Duration
}

// receiver is a collector of traces that keeps them.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex // guards the fields below
	spans    []span
	raw      []byte
	requests int
	changed  chan struct{}
}

func startReceiver(t *testing.T) *receiver {
	r := &receiver{changed: make(chan struct{})}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var batch collector.ExportTraceServiceRequest
		if err != nil || req.URL.Path != "/v1/traces" || proto.Unmarshal(body, &batch) != nil {
			t.Errorf("the collector got %s with %q (%v)", req.URL.Path, body, err)
		}
		r.take(body, &batch)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) take(body []byte, batch *collector.ExportTraceServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raw, r.requests = append(r.raw, body...), r.requests+1
	for _, resource := range batch.GetResourceSpans() {
		node := ""
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.instance.id" {
				node = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				r.spans = append(r.spans, spanOf(node, s))
			}
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

func spanOf(node string, s *traces.Span) span {
	attributes := map[string]string{}
	for _, a := range s.GetAttributes() {
		attributes[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return span{
		name: s.GetName(), node: node, attributes: attributes,
		trace: hex.EncodeToString(s.GetTraceId()), id: hex.EncodeToString(s.GetSpanId()), parent: hex.EncodeToString(s.GetParentSpanId()),
		took: time.Duration(s.GetEndTimeUnixNano() - s.GetStartTimeUnixNano()),
	}
}

// await gives the spans of a trace once there are n of a name, and others that
// came by then.
func (r *receiver) await(t *testing.T, trace string, want map[string]int) []span {
	t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		spans, changed := slices.Clone(r.spans), r.changed
		r.mu.Unlock()
		spans = slices.DeleteFunc(spans, func(s span) bool { return s.trace != trace })
		got := map[string]int{}
		for _, s := range spans {
			got[s.name]++
		}
		enough := true
		for name, n := range want {
			enough = enough && got[name] >= n
		}
		if enough {
			return spans
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("of the trace %s there are %v, want %v", trace, got, want)
		}
	}
}

const (
	traceID    = "4bf92f3577b34da6a3ce929d0e0e4736"
	callerSpan = "00f067aa0ba902b7"
)

func traceparent(id string) string { return "00-" + id + "-" + callerSpan + "-01" }

// publishTraced publishes as part of a trace.
func publishTraced(t *testing.T, client *http.Client, url, parent, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Traceparent", parent)
	req.Header.Set("Authorization", "Bearer not.for.collectors")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("publishing: %s", resp.Status)
	}
}

// TestATraceGoesFromAPublicationToTheStreamsOfAllNodes: over real nodes, a real
// Redis, and OTLP as it is.
func TestATraceGoesFromAPublicationToTheStreamsOfAllNodes(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50") // milliseconds until spans are sent
	redis, collected := redistest.Start(t), startReceiver(t)
	a := startNode(t, redis.URL(), "--otlp-endpoint="+collected.URL, "--trace-sample=0")
	b := startNode(t, redis.URL(), "--otlp-endpoint="+collected.URL, "--trace-sample=0")
	client := newClient()
	defer client.CloseIdleConnections()
	onA, _ := listen(t, client, a.url+"/rooms/lobby/events")
	onB, _ := listen(t, client, b.url+"/rooms/lobby/events")
	publishTraced(t, client, a.url+"/rooms/lobby/events?secret=of-the-query", traceparent(traceID), "data of nobody's business")
	for _, s := range []eventStream{onA, onB} {
		if got, err := s.next(); err != nil || got.data != "data of nobody's business" {
			t.Fatalf("a stream shows %+v, %v", got, err)
		}
	}

	spans := collected.await(t, traceID, map[string]int{"POST /rooms/{room}/events": 1, "append": 1, "fan out": 2})
	if len(spans) != 4 {
		t.Errorf("there are %d spans, want 4: %+v", len(spans), spans)
	}
	by := map[string]span{}
	nodes := map[string]bool{}
	for _, s := range spans {
		by[s.name] = s
		if s.name == "fan out" {
			nodes[s.node] = true
		}
		if s.took < 0 || s.took > patience || s.attributes["sluice.room"] != "" {
			t.Errorf("a span took %v and names the room %q", s.took, s.attributes["sluice.room"])
		}
	}
	post, step := by["POST /rooms/{room}/events"], by["append"]
	if post.parent != callerSpan || step.parent != post.id || step.node != post.node {
		t.Errorf("the publication is a child of %s, and the log's part one of %s; want %s and %s", post.parent, step.parent, callerSpan, post.id)
	}
	if len(nodes) != 2 || !nodes[post.node] {
		t.Errorf("the event went out on %v, want both nodes, of which one is %s", nodes, post.node)
	}
	for _, s := range spans {
		if s.name == "fan out" && s.parent != post.id {
			t.Errorf("the event went out as a child of %s, want %s", s.parent, post.id)
		}
	}

	publishTraced(t, client, a.url+"/rooms/lobby/events", "00-"+strings.Repeat("b", 32)+"-"+callerSpan+"-00", "of a trace that is not sampled")
	publishTraced(t, client, a.url+"/rooms/lobby/events", "00-nonsense", "of none")
	publishTraced(t, client, b.url+"/rooms/lobby/events", traceparent(strings.Repeat("c", 32)), "of another")
	collected.await(t, strings.Repeat("c", 32), map[string]int{"fan out": 2})
	records := fmt.Sprint(redis.Do("XRANGE", "sluice:log:{lobby}", "-", "+"))
	if n := strings.Count(records, "|t.00-"); n != 2 {
		t.Errorf("%d records carry a trace, want the two that are sampled: %s", n, records)
	}
	collected.mu.Lock()
	defer collected.mu.Unlock()
	for _, secret := range []string{"not.for.collectors", "nobody's business", "of-the-query", "lobby", redis.Addr} {
		if strings.Contains(string(collected.raw), secret) {
			t.Errorf("the collector was told %q", secret)
		}
	}
	for _, s := range collected.spans {
		if s.trace != traceID && s.trace != strings.Repeat("c", 32) {
			t.Errorf("a span of a trace that is not sampled: %+v", s)
		}
	}
}

// TestTracesAreOffUnlessACollectorIsNamed.
func TestTracesAreOffUnlessACollectorIsNamed(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	redis, collected := redistest.Start(t), startReceiver(t)
	off := startNode(t, redis.URL())
	client := newClient()
	defer client.CloseIdleConnections()
	publishTraced(t, client, off.url+"/rooms/lobby/events", traceparent(traceID), "x")
	if records := fmt.Sprint(redis.Do("XRANGE", "sluice:log:{lobby}", "-", "+")); !strings.Contains(records, "|t|") || strings.Contains(records, traceID) {
		t.Errorf("the record carries a trace: %s", records)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.URL)
	on := startNode(t, redis.URL(), "--trace-rooms")
	publishTraced(t, client, on.url+"/rooms/lobby/events", traceparent(traceID), "x")
	spans := collected.await(t, traceID, map[string]int{"POST /rooms/{room}/events": 1, "append": 1})
	if len(spans) != 2 || !slices.ContainsFunc(spans, func(s span) bool { return s.attributes["sluice.room"] == "lobby" }) {
		t.Errorf("the spans are %+v; want two, from the node that has a collector, and the room", spans)
	}
}
