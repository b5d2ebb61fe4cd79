package handlers

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// spread is what a histogram has observed, by its native buckets, whose bounds
// grow by a factor of 2^(2^-schema).
type spread struct {
	schema  int32
	count   uint64
	zero    uint64           // observations of nothing at all
	buckets map[int32]uint64 // by index: bucket i ends at factor^i seconds
}

// spreadOf reads a histogram as it is now.
func spreadOf(h prometheus.Histogram) spread {
	var m dto.Metric
	if h.Write(&m) != nil {
		return spread{} // which none of ours does
	}
	native := m.GetHistogram()
	s := spread{
		schema: native.GetSchema(), count: native.GetSampleCount(), zero: native.GetZeroCount(),
		buckets: make(map[int32]uint64, len(native.GetPositiveDelta())),
	}
	deltas := native.GetPositiveDelta()
	index, n := int32(0), int64(0)
	for _, span := range native.GetPositiveSpan() {
		index += span.GetOffset()
		for range span.GetLength() {
			n += deltas[0]
			deltas = deltas[1:]
			s.buckets[index] = uint64(n)
			index++
		}
	}
	return s
}

// since gives what was observed after an earlier reading. A histogram that has
// become too fine begins anew, or with coarser buckets; of the moment in which
// it does, what can be told is told.
func (s spread) since(before spread) spread {
	if s.count < before.count {
		return s
	}
	if s.schema != before.schema {
		return spread{schema: s.schema}
	}
	d := spread{schema: s.schema, count: s.count - before.count, zero: s.zero - before.zero, buckets: map[int32]uint64{}}
	for i, n := range s.buckets {
		if n > before.buckets[i] {
			d.buckets[i] = n - before.buckets[i]
		}
	}
	return d
}

// quantile gives the time in seconds within which a part q of what was observed
// lies, by the middle of its bucket; 0 if nothing was.
func (s spread) quantile(q float64) float64 {
	rank := uint64(math.Ceil(q * float64(s.count)))
	if rank <= s.zero || len(s.buckets) == 0 {
		return 0
	}
	least, most := int32(math.MaxInt32), int32(math.MinInt32)
	for i := range s.buckets {
		least, most = min(least, i), max(most, i)
	}
	seen := s.zero
	for i := least; i < most; i++ {
		if seen += s.buckets[i]; seen >= rank {
			most = i
		}
	}
	return math.Exp2((float64(most) - .5) * math.Exp2(-float64(s.schema)))
}
