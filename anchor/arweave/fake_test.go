package arweave

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/everFinance/goar/types"
)

// A fake is a gateway whose every answer can be given: what a real one does is tested on
// a real one.
type fake struct {
	*httptest.Server
	mu     sync.Mutex
	answer map[string]func(w http.ResponseWriter) // by path; "*" is any
	chunks []int                                  // sizes, in the order of arrival
	posts  int
	fail   int // the chunk, counted from 1, that is refused once
}

const fakeBlock = "AAAABBBBCCCCDDDD"

func text(code int, format string, a ...any) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(code)
		fmt.Fprintf(w, format, a...)
	}
}

func newFake(t *testing.T) *fake {
	f := &fake{answer: map[string]func(http.ResponseWriter){
		"/info":      text(200, `{"network":"arlocal.N.1","height":1000}`),
		"/tx_anchor": text(200, "AAAA"),
		"/price":     text(200, "500"),
		"/wallet":    text(200, "1000000"),
		"/tx":        text(200, "OK"),
		"/chunk":     text(200, "OK"),
	}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// set gives the answer for a path, "/price" and "/wallet" for all below them.
func (f *fake) set(path string, code int, format string, a ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer[path] = text(code, format, a...)
}

func (f *fake) status(id string, code int, format string, a ...any) {
	f.set("/tx/"+id+"/status", code, format, a...)
}

// mined says that a transaction is in fakeBlock with so many confirmations.
func (f *fake) mined(id string, block string, height, depth int) {
	f.status(id, 200, `{"block_height":%d,"block_indep_hash":%q,"number_of_confirmations":%d}`, height, block, depth)
	f.set("/block/hash/"+block, 200, `{"indep_hash":%q,"height":%d,"timestamp":1790000000,"txs":["x",%q]}`, block, height, id)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	path := r.URL.Path
	for _, p := range []string{"/price", "/wallet"} {
		if strings.HasPrefix(path, p+"/") {
			path = p
		}
	}
	if r.Method == http.MethodPost && path == "/tx" {
		f.posts++
	}
	if r.Method == http.MethodPost && path == "/chunk" {
		var c types.GetChunk
		if err := json.Unmarshal(body, &c); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		b, _ := decode(c.Chunk)
		if f.chunks = append(f.chunks, len(b)); len(f.chunks) == f.fail {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
	}
	if a := f.answer[path]; a != nil {
		a(w)
		return
	}
	http.Error(w, "Not Found", http.StatusNotFound)
}
