package compress

import (
	"bytes"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// What a ShortSealer makes opens as any frame of codec Zstd does, on many goroutines too.
func TestShortSealer(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := NewShortSealer()
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, in := range inputs {
				for _, size := range []int{0, 1, 20, 255, 256, 5_000, 12_345, 300_000} {
					plain := in.make(size)
					sealed := s.Seal([]byte("before"), plain)
					if !bytes.HasPrefix(sealed, []byte("before")) || len(sealed) > size+size/1000+40 {
						t.Errorf("%s: %d bytes become %d", in.name, size, len(sealed))
						return
					}
					got, err := o.Open(nil, Zstd, sealed[6:], size)
					if err != nil || !bytes.Equal(got, plain) {
						t.Errorf("%s, %d bytes: %v", in.name, size, err)
					}
				}
			}
		})
	}
	wg.Wait()
	// A row of an index repeats itself, but for its digests.
	if n := len(s.Seal(nil, bytes.Repeat([]byte("12390a2401551220 a name 18"), 200))); n > 100 {
		t.Errorf("%d bytes where it repeats itself", n)
	}
}
