package limit

import "testing"

// TestFewDescriptorsAreMostlyForStreams: --max-streams is what two reserves leave.
func TestFewDescriptorsAreMostlyForStreams(t *testing.T) {
	for descriptors, streams := range map[int]int{2: 0, 40: 0, 256: 200, 1024: 896, 20_000: 17_952, 1_000_000: 997_952} {
		if got := descriptors - 2*Reserve(descriptors); got != streams {
			t.Errorf("of %d descriptors %d are for streams, want %d", descriptors, got, streams)
		}
	}
}
