package grpcapi

import (
	"bytes"
	"testing"

	"github.com/koii-network/scale/store/pack"
)

// TestUploadMemory: memory of frames that have arrived is used again, and not without end
// where sizes change.
func TestUploadMemory(t *testing.T) {
	u := &uploader{}
	first := u.keep(bytes.Repeat([]byte{1}, 900_000))
	u.forgo([]pack.Frame{{Sealed: first}})
	second := u.keep(bytes.Repeat([]byte{2}, 1_000_000))
	if &first[0] != &second[0] || len(second) != 1_000_000 || bytes.IndexByte(second, 1) >= 0 {
		t.Error("the memory of a frame of about that size was not used again")
	}
	const most = uploadCalls * (uploadSealed + 4<<20)
	for step := range 16 {
		var frames []pack.Frame
		for range 36 {
			frames = append(frames, pack.Frame{Sealed: make([]byte, 0, (step+1)*256<<10)})
		}
		u.forgo(frames)
		kept := 0
		for _, b := range u.free {
			kept += cap(b)
		}
		if kept != u.size || kept > most {
			t.Fatalf("%d bytes are kept, %d are counted, at most %d should be", kept, u.size, most)
		}
	}
	if u.size < most/2 {
		t.Errorf("only %d bytes are kept", u.size)
	}
}
