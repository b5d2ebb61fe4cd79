package fanout

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/fanout/redistest"
)

// benchAppend appends events of 150 bytes to 100 rooms, from 64 goroutines for
// each processor.
func benchAppend(b *testing.B, log Log) {
	draft := Draft{Type: "message", Data: []byte(`{"text":"` + strings.Repeat("x", 150) + `"}`), JSON: true}
	rooms := make([]string, 100)
	for i := range rooms {
		rooms[i] = strconv.Itoa(i)
	}
	var next atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			room := rooms[int(next.Add(1))%len(rooms)]
			if _, err := log.Append(b.Context(), room, []Draft{draft}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkAppendToMemory(b *testing.B) { benchAppend(b, NewMemory(Retention{})) }

// BenchmarkAppendToRedis also reports the processor time that Redis takes for
// an event, and how many events go through its script at a time.
func BenchmarkAppendToRedis(b *testing.B) {
	server := redistest.Start(b)
	log, err := OpenRedis(RedisOptions{URL: server.URL(), Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	used := func() (processor, calls float64) {
		cpu := infoOf(b.Context(), log.servers.client(theOnly), "cpu")
		for _, field := range []string{"used_cpu_user_main_thread", "used_cpu_sys_main_thread"} {
			seconds, _ := strconv.ParseFloat(cpu[field], 64)
			processor += seconds
		}
		scripts := infoOf(b.Context(), log.servers.client(theOnly), "commandstats")["cmdstat_evalsha"]
		digits, _, _ := strings.Cut(strings.TrimPrefix(scripts, "calls="), ",")
		calls, _ = strconv.ParseFloat(digits, 64)
		return processor, calls
	}
	processor, calls := used()
	b.ResetTimer()
	benchAppend(b, log)
	b.StopTimer()
	processorNow, callsNow := used()
	b.ReportMetric((processorNow-processor)*1e6/float64(b.N), "redis-µs/op")
	b.ReportMetric(float64(b.N)/max(1, callsNow-calls), "events/call")
}
