package grpcapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// fetch does a request that must succeed and returns the messages of its answer, which must
// be the JSON form of protobuf, in lines of {"result": ...} if it is a stream.
func fetch[T any, M interface {
	*T
	proto.Message
}](t *testing.T, n *webNode, method, path, body string, stream bool) (all []proto.Message) {
	t.Helper()
	head := n.bearer()
	if method == "GET" {
		head = nil
	}
	code, h, text := n.do(t, method, path, body, head...)
	if code != 200 || h.Get("Content-Type") != "application/json" {
		t.Fatalf("%s %s: %d %v %s", method, path, code, h, text)
	}
	for line := range strings.Lines(text) {
		if stream {
			var part map[string]json.RawMessage
			if err := json.Unmarshal([]byte(line), &part); err != nil || len(part) != 1 || part["result"] == nil {
				t.Fatalf("%s: not a message of a stream: %q (%v)", path, line, err)
			}
			line = string(part["result"])
		}
		m := M(new(T))
		if err := protojson.Unmarshal([]byte(line), m); err != nil {
			t.Fatalf("%s: %v: %s", path, err, line)
		}
		all = append(all, m)
	}
	return all
}

// one makes a list of the answer to a gRPC call.
func one[M proto.Message](t *testing.T, m M, err error) []proto.Message {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return []proto.Message{m}
}

func many[T any, M interface {
	*T
	proto.Message
}](t *testing.T, s grpc.ServerStreamingClient[T], err error) (all []proto.Message) {
	t.Helper()
	for err == nil {
		var m *T
		if m, err = s.Recv(); err == nil {
			all = append(all, M(m))
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return all
}

// What reads says the same as JSON and over gRPC.
func TestHTTPAnswersAreThoseOfGRPC(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	file := bytes.Repeat([]byte("the same answer either way\n"), 6_000)
	n.put(t, "file", file)
	tree := `{"header":{"name":"tree","kind":"KIND_DIRECTORY"}}
{"entry":{"path":"YQ==","kind":"KIND_FILE","mode":420}}
{"data":"` + base64.StdEncoding.EncodeToString(file) + `"}
{"entry":{"path":"Yg==","kind":"KIND_LINK","target":"YQ=="}}`
	fetch[scalev1.PutResponse](t, n, "POST", "/v1/put", tree, false)
	fetch[scalev1.RemoveResponse](t, n, "POST", "/v1/datasets/file/remove", "{}", false)
	n.put(t, "file", []byte("again"))

	conn, err := grpc.NewClient("passthrough:///"+n.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var (
		ctx      = t.Context()
		datasets = scalev1.NewDatasetServiceClient(conn)
		ledger   = scalev1.NewLedgerServiceClient(conn)
		proofs   = scalev1.NewProofServiceClient(conn)
		node     = scalev1.NewNodeServiceClient(conn)
	)
	to, size := uint64(1000), int64(3)
	path, seed := []byte("a"), bytes.Repeat([]byte{7}, 16)
	compare := func(what string, viaHTTP, viaGRPC []proto.Message) {
		t.Helper()
		if !slices.EqualFunc(viaHTTP, viaGRPC, proto.Equal) || len(viaHTTP) == 0 {
			t.Errorf("%s: over HTTP there is other than over gRPC:\n%s", what, cmp.Diff(viaGRPC, viaHTTP, protocmp.Transform()))
		}
	}
	stat, err := datasets.Stat(ctx, &scalev1.StatRequest{Ref: "tree", Path: path})
	compare("stat", fetch[scalev1.StatResponse](t, n, "GET", "/v1/stat?ref=tree&path=YQ==", "", false), one(t, stat, err))
	resolved, err := datasets.Resolve(ctx, &scalev1.ResolveRequest{Ref: "file@1"})
	compare("resolve", fetch[scalev1.ResolveResponse](t, n, "GET", "/v1/resolve?ref=file@1", "", false), one(t, resolved, err))
	page, err := datasets.ListDatasets(ctx, &scalev1.ListDatasetsRequest{PageSize: 1})
	compare("datasets", fetch[scalev1.ListDatasetsResponse](t, n, "GET", "/v1/datasets?page_size=1", "", false), one(t, page, err))
	token := page.GetNextPageToken()
	page, err = datasets.ListDatasets(ctx, &scalev1.ListDatasetsRequest{PageSize: 1, PageToken: token})
	compare("datasets, next", fetch[scalev1.ListDatasetsResponse](t, n, "GET", "/v1/datasets?pageSize=1&pageToken="+url.QueryEscape(token), "", false), one(t, page, err))
	versions, err := datasets.ListVersions(ctx, &scalev1.ListVersionsRequest{Name: "file"})
	compare("versions", fetch[scalev1.ListVersionsResponse](t, n, "GET", "/v1/datasets/file/versions", "", false), one(t, versions, err))
	if len(versions.GetVersions()) != 3 || versions.GetVersions()[1].GetRemoval() == nil {
		t.Errorf("versions: %v", versions)
	}
	list, err := datasets.ListTree(ctx, &scalev1.ListTreeRequest{Ref: "tree"})
	compare("tree", fetch[scalev1.ListTreeResponse](t, n, "GET", "/v1/tree?ref=tree", "", false), one(t, list, err))
	get, err := datasets.Get(ctx, &scalev1.GetRequest{Ref: "tree", Path: path, Range: &scalev1.ByteRange{Start: 5, End: &to}})
	compare("get", fetch[scalev1.GetResponse](t, n, "GET", "/v1/get?ref=tree&path=YQ==&range.start=5&range.end=1000", "", true), many(t, get, err))

	head, err := ledger.GetHead(ctx, &scalev1.GetHeadRequest{Name: "file"})
	compare("head", fetch[scalev1.GetHeadResponse](t, n, "GET", "/v1/ledger/head?name=file", "", false), one(t, head, err))
	entry, err := ledger.GetEntry(ctx, &scalev1.GetEntryRequest{Index: 2})
	compare("entry", fetch[scalev1.GetEntryResponse](t, n, "GET", "/v1/ledger/entries/2", "", false), one(t, entry, err))
	entries, err := ledger.StreamEntries(ctx, &scalev1.StreamEntriesRequest{Start: 1})
	compare("entries", fetch[scalev1.StreamEntriesResponse](t, n, "GET", "/v1/ledger/entries?start=1", "", true), many(t, entries, err))
	inclusion, err := ledger.GetInclusionProof(ctx, &scalev1.GetInclusionProofRequest{Index: 1, Size: &size})
	compare("inclusion", fetch[scalev1.GetInclusionProofResponse](t, n, "GET", "/v1/ledger/inclusion?index=1&size=3", "", false), one(t, inclusion, err))
	consistency, err := ledger.GetConsistencyProof(ctx, &scalev1.GetConsistencyProofRequest{OldSize: 2})
	compare("consistency", fetch[scalev1.GetConsistencyProofResponse](t, n, "GET", "/v1/ledger/consistency?old_size=2", "", false), one(t, consistency, err))
	curators, err := scalev1.NewCuratorServiceClient(conn).ListCurators(ctx, &scalev1.ListCuratorsRequest{})
	compare("curators", fetch[scalev1.ListCuratorsResponse](t, n, "GET", "/v1/curators", "", false), one(t, curators, err))
	info, err := node.GetInfo(ctx, &scalev1.GetInfoRequest{})
	compare("info", fetch[scalev1.GetInfoResponse](t, n, "GET", "/v1/info", "", false), one(t, info, err))
	totals, err := node.GetTotals(ctx, &scalev1.GetTotalsRequest{})
	compare("totals", fetch[scalev1.GetTotalsResponse](t, n, "GET", "/v1/totals", "", false), one(t, totals, err))

	proven, err := proofs.Prove(ctx, &scalev1.ProveRequest{Ref: "tree", Path: path, Range: &scalev1.ByteRange{Start: 5, End: &to}, WithData: true})
	viaHTTP := fetch[scalev1.ProveResponse](t, n, "GET", "/v1/prove?ref=tree&path=YQ==&range.start=5&range.end=1000&with_data=true", "", true)
	compare("prove", viaHTTP, many(t, proven, err))
	var req scalev1.VerifyRequest
	var data []byte
	var what *scalev1.ProofInfo
	for _, m := range viaHTTP {
		r := m.(*scalev1.ProveResponse)
		if r.GetInfo() != nil {
			what = r.GetInfo()
		}
		req.Proof, data = append(req.Proof, r.GetProof()...), append(data, r.GetData()...)
	}
	req.Policy, req.What = info.GetVkey(), &scalev1.VerifyRequest_Data{Data: data}
	body, err := protojson.Marshal(&req)
	if err != nil {
		t.Fatal(err)
	}
	verdict, err := proofs.Verify(ctx, &req)
	compare("verify", fetch[scalev1.VerifyResponse](t, n, "POST", "/v1/verify", string(body), false), one(t, verdict, err))
	if !verdict.GetValid() || what.GetEnd() < to || !bytes.Equal(data, file[what.GetStart():what.GetEnd()]) {
		t.Errorf("the proof: %v, with %d bytes", verdict, len(data))
	}
	challenge, err := scalev1.NewAuditServiceClient(conn).Challenge(ctx, &scalev1.ChallengeRequest{Ref: "tree", Seed: seed, Count: 3})
	compare("challenge", fetch[scalev1.ChallengeResponse](t, n, "POST", "/v1/challenge",
		`{"ref":"tree","count":3,"seed":"`+base64.StdEncoding.EncodeToString(seed)+`"}`, true), many(t, challenge, err))
}

// What the document says of a call, as far as the tests look.
type documented struct {
	OperationID string `json:"operationId"`
	Parameters  []struct {
		Name, In, Type string
		Required       bool
		Schema         json.RawMessage
	}
	Responses map[string]struct {
		Description string
		Schema      json.RawMessage
	}
}

func readDocument(t *testing.T, text string) (paths map[string]map[string]documented) {
	t.Helper()
	var doc struct {
		Swagger     string
		Info        struct{ Title, Version string }
		Paths       map[string]map[string]documented
		Definitions map[string]json.RawMessage
		Security    []map[string][]string
		Schemes     map[string]struct{ Type, Name, In string } `json:"securityDefinitions"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Swagger != "2.0" || doc.Info.Title == "" || doc.Info.Version == "" {
		t.Errorf("not a document: %q %v", doc.Swagger, doc.Info)
	}
	if s := doc.Schemes["token"]; len(doc.Security) != 1 || doc.Security[0]["token"] == nil || s.Type != "apiKey" || s.In != "header" || s.Name != "Authorization" {
		t.Errorf("security %v of %v", doc.Security, doc.Schemes)
	}
	for _, ref := range regexp.MustCompile(`"\$ref":\s*"([^"]*)"`).FindAllStringSubmatch(text, -1) {
		name, ok := strings.CutPrefix(ref[1], "#/definitions/")
		if !ok || doc.Definitions[name] == nil {
			t.Errorf("%s is not in the document", ref[1])
		}
	}
	return doc.Paths
}

// The document has every call that there is, each under the path that leads to it, and
// none of those that are for administrators or of binary pieces.
func TestHTTPDocument(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	code, head, text := n.do(t, "GET", "/openapi.json", "")
	if code != 200 || head.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v", code, head)
	}
	template := regexp.MustCompile(`\{([^}]*)\}`)
	var documents []string
	table := methods
	for path, methods := range readDocument(t, text) {
		for verb, op := range methods {
			verb = strings.ToUpper(verb)
			documents = append(documents, verb+" "+path)
			if op.Responses["200"].Schema == nil || op.Responses["default"].Schema == nil || op.Responses["200"].Description == "" {
				t.Errorf("%s %s: responses %v", verb, path, op.Responses)
			}
			body, inPath := "", map[string]bool{}
			for _, p := range op.Parameters {
				switch p.In {
				case "body":
					body = "{}"
					if p.Schema == nil || !p.Required {
						t.Errorf("%s: body %v", path, p)
					}
				case "path":
					inPath[p.Name] = true
					if p.Type == "" || !p.Required {
						t.Errorf("%s: parameter %v", path, p)
					}
				case "query":
					if p.Type == "" {
						t.Errorf("%s: parameter %v", path, p)
					}
				default:
					t.Errorf("%s: parameter %v", path, p)
				}
			}
			for _, v := range template.FindAllStringSubmatch(path, -1) {
				if !inPath[v[1]] {
					t.Errorf("%s: %s is not described", path, v[1])
				}
			}
			service, method, _ := strings.Cut(op.OperationID, "_")
			want := "/scale.v1." + service + "/" + method
			if m, ok := table[want]; !ok || m.scope > write && method != "AnchorNow" || service == "BlockService" {
				t.Errorf("%s %s is documented as %s", verb, path, want)
				continue
			}
			// The call that answers is the one of that name, whatever it says to nothing.
			head := n.bearer()
			if table[want].scope > write { // what a caller may not do is refused at the port
				head = []string{"Authorization", "Bearer " + mustCreate(t, n.tokens, "admin", scalev1.Scope_SCOPE_ADMIN, time.Time{}), "Content-Type", "application/json"}
			}
			status, _, answer := n.do(t, verb, template.ReplaceAllString(path, "1"), body, head...)
			select {
			case c := <-n.calls:
				if c.Method != want {
					t.Errorf("%s %s leads to %s, not %s", verb, path, c.Method, want)
				}
			default:
				t.Errorf("%s %s leads nowhere: %d %s", verb, path, status, answer)
			}
		}
	}
	// The source has no other routes.
	b, err := os.ReadFile(filepath.Join("..", "proto", "http.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for _, m := range regexp.MustCompile(`(?m)^ +(get|post|put|patch|delete): (\S+)$`).FindAllStringSubmatch(string(b), -1) {
		rules = append(rules, strings.ToUpper(m[1])+" "+m[2])
	}
	slices.Sort(rules)
	slices.Sort(documents)
	if diff := cmp.Diff(rules, documents); diff != "" || len(rules) == 0 {
		t.Errorf("routes and document:\n%s", diff)
	}
}

// No path leads to what is for administrators, or for clients of ours alone.
func TestHTTPHasNoAdministration(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	for name, m := range methods {
		parts := strings.Split(name, "/")
		service := parts[1][strings.LastIndex(parts[1], ".")+1:]
		if m.scope < admin && service != "BlockService" && strings.HasPrefix(name, "/scale.v1.") {
			continue
		}
		for _, path := range []string{name, "/v1" + name, "/v1/" + service + "/" + parts[2], strings.ToLower("/v1/" + parts[2])} {
			for _, verb := range []string{"GET", "POST", "PUT", "DELETE"} {
				code, _, body := n.do(t, verb, path, "{}", n.bearer()...)
				if code != 404 && code != 405 && code != 501 {
					t.Errorf("%s %s: %d %s", verb, path, code, body)
				}
			}
		}
	}
	if len(n.calls) > 0 {
		t.Errorf("something was called: %v", <-n.calls)
	}
}

// A parameter that no call has is not left out without a word.
func TestHTTPUnknownParameters(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	n.put(t, "file", []byte("x"))
	for query, want := range map[string]int{
		"ref=file": 200, "ref=file&range.start=0&range.end=1": 200, "": 400,
		"ref=file&rang.start=0": 400, "ref=file&range.strat=0": 400, "ref=file&ref.x=0": 400, "ref=file&range.start.x=0": 400,
		"ref=file&access_token=secret": 400, "ref=file&.": 400, "ref=file&=": 400, "ref=file&range[from]=1": 400, "ref=file&ref=file": 400,
	} {
		if code, _, body := n.do(t, "GET", "/v1/get?"+query, ""); code != want {
			t.Errorf("%q: %d %s", query, code, body)
		} else if code == 400 && reason(t, body) != "INVALID" {
			t.Errorf("%q: %s", query, body)
		}
	}
}

// A stream that fails before its first message is an error like any other. For one that
// fails later see TestStreamEndsWithToken.
func TestHTTPStreamFails(t *testing.T) {
	n := newWebNode(t, Limits{}, nil)
	n.put(t, "file", []byte("x"))
	for _, path := range []string{"/v1/get?ref=none", "/v1/prove?ref=none", "/v1/ledger/entries?start=100"} {
		code, head, body := n.do(t, "GET", path, "")
		if code < 400 || reason(t, body) == "" || head.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s", path, code, head, body)
		}
		code, head, body = n.do(t, "GET", path, "", "Authorization", "Bearer x")
		if code != 401 || reason(t, body) != "TOKEN" || head.Get("WWW-Authenticate") == "" {
			t.Errorf("%s with a bad token: %d %v %s", path, code, head, body)
		}
	}
	if code, _, body := n.do(t, "POST", "/v1/challenge", fmt.Sprintf(`{"ref":"file","seed":"%s","count":99999}`,
		base64.StdEncoding.EncodeToString(make([]byte, 16))), n.bearer()...); code != 400 || reason(t, body) != "INVALID" {
		t.Errorf("challenge: %d %s", code, body)
	}
}
