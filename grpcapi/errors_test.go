package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Every class goes over the wire and comes back as what it was, and as nothing else.
func TestErrorClassesBothWays(t *testing.T) {
	names := map[string]bool{}
	for _, c := range errorClasses {
		if names[c.name] {
			t.Errorf("two classes are named %s", c.name)
		}
		names[c.name] = true
		err := fmt.Errorf("put %q: %w", "x", c.err)
		st := toStatus(err)
		if st.Code() != c.code {
			t.Errorf("%s: %v, want %v", c.name, st.Code(), c.code)
		}
		back := fromStatus(st.Err())
		for _, other := range errorClasses {
			if got, want := errors.Is(back, other.err), errors.Is(c.err, other.err); got != want {
				t.Errorf("%s comes back as %s: %t, want %t", c.name, other.name, got, want)
			}
		}
		info := detailOf[*errdetails.ErrorInfo](st)
		if c.reason == scalev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
			if info != nil {
				t.Errorf("%s has a reason: %v", c.name, info)
			}
			continue
		}
		if reasonPrefix+info.GetReason() != c.reason.String() || info.GetDomain() != errorDomain || info.GetMetadata()["class"] != c.name {
			t.Errorf("%s: %v", c.name, info)
		}
		if c.code == codes.Internal {
			if strings.Contains(st.Message(), "put") || strings.Contains(st.Message(), c.err.Error()) && c.err != ErrInternal {
				t.Errorf("%s tells %q", c.name, st.Message())
			}
		} else if st.Message() != err.Error() {
			t.Errorf("%s says %q, want %q", c.name, st.Message(), err)
		}
		links := detailOf[*errdetails.Help](st).GetLinks()
		if hint := back.(interface{ Hint() string }).Hint(); hint != c.hint || (len(links) == 1) != (c.hint != "") {
			t.Errorf("%s: hint %q, want %q", c.name, hint, c.hint)
		}
		if got := detailOf[*errdetails.RetryInfo](st).GetRetryDelay().AsDuration(); got != c.retry {
			t.Errorf("%s: retry after %v, want %v", c.name, got, c.retry)
		}
	}
}

// sentinels returns the exported error classes that files declare.
func sentinels(t *testing.T, pattern string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		file, err := goparser.ParseFile(token.NewFileSet(), f, nil, goparser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			d, ok := d.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, s := range d.Specs {
				for _, n := range s.(*ast.ValueSpec).Names {
					if strings.HasPrefix(n.Name, "Err") {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

// The table has every class that the engine's packages declare.
func TestErrorClassesComplete(t *testing.T) {
	var table []string
	file, err := goparser.ParseFile(token.NewFileSet(), "errors.go", nil, goparser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || v.Names[0].Name != "errorClasses" {
			return true
		}
		for _, line := range v.Values[0].(*ast.CompositeLit).Elts {
			switch e := line.(*ast.CompositeLit).Elts[0].(type) {
			case *ast.Ident:
				table = append(table, "."+e.Name)
			case *ast.SelectorExpr:
				table = append(table, e.X.(*ast.Ident).Name+"."+e.Sel.Name)
			}
		}
		return false
	})
	if len(table) != len(errorClasses) {
		t.Fatalf("%d of %d lines read", len(table), len(errorClasses))
	}
	for pkg, files := range map[string]string{
		// The package's others are those of its client, which no node tells.
		"": "errors.go", "store": "../store/*.go", "dag": "../dag/*.go", "ledger": "../dag/ledger/*.go",
		"proof": "../dag/proof/*.go", "audit": "../dag/audit/*.go",
	} {
		for _, name := range sentinels(t, files) {
			if !slices.Contains(table, pkg+"."+name) {
				t.Errorf("%s.%s is not in the table", pkg, name)
			}
		}
	}
}

// Every reason of the API is given for something, with the code that the API says.
func TestErrorReasons(t *testing.T) {
	text, err := os.ReadFile("../proto/scale/v1/types.proto")
	if err != nil {
		t.Fatal(err)
	}
	said, names := map[string]string{}, map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^  // \[([A-Z_]+)\] ((?:.*\n  // )*.*)\n  (ERROR_REASON_[A-Z_]+) = `).FindAllSubmatch(text, -1) {
		said[string(m[3])] = string(m[1])
		_, list, _ := strings.Cut(string(m[2]), "Class")
		for _, name := range regexp.MustCompile(`"([a-z-]+)"`).FindAllStringSubmatch(list, -1) {
			names[string(m[3])] = append(names[string(m[3])], name[1])
		}
	}
	given := map[scalev1.ErrorReason]bool{}
	for _, c := range errorClasses {
		given[c.reason] = true
		if c.reason == scalev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
			continue
		}
		var code codes.Code
		if err := code.UnmarshalJSON([]byte(`"` + said[c.reason.String()] + `"`)); err != nil {
			t.Errorf("%v: the API says no code: %v", c.reason, err)
		} else if code != c.code {
			t.Errorf("%s: %v, the API says %v", c.name, c.code, code)
		}
		at := slices.Index(names[c.reason.String()], c.name)
		if at < 0 {
			t.Errorf("%v: the API does not list the class %q", c.reason, c.name)
			continue
		}
		names[c.reason.String()] = slices.Delete(names[c.reason.String()], at, at+1)
	}
	for reason, left := range names {
		if len(left) > 0 {
			t.Errorf("%s: the API lists %q, which nothing has", reason, left)
		}
	}
	for n, name := range scalev1.ErrorReason_name {
		if !given[scalev1.ErrorReason(n)] {
			t.Errorf("nothing has the reason %s", name)
		}
	}
}

func TestErrorDetails(t *testing.T) {
	st := toStatus(fmt.Errorf("frame 3: %w", invalidf("range.end", "%d is too much", 7)))
	violations := detailOf[*errdetails.BadRequest](st).GetFieldViolations()
	if len(violations) != 1 || violations[0].GetField() != "range.end" || !strings.Contains(violations[0].GetDescription(), "7 is too much") {
		t.Errorf("field: %v", violations)
	}

	st = toStatus(busy("full"))
	back := fromStatus(st.Err())
	var retry *RetryAfter
	if !errors.As(back, &retry) || retry.After != soon || !errors.Is(back, ErrLimit) {
		t.Errorf("retry: %v, %+v", back, retry)
	}
	retry = nil
	if back = fromStatus(toStatus(fmt.Errorf("too large: %w", ErrLimit)).Err()); errors.As(back, &retry) {
		t.Error("a limit that does not pass has a time to retry")
	}

	missing := &store.MissingError{}
	for i := range 40 {
		missing.Digests = append(missing.Digests, dag.Digest{byte(i)})
	}
	st = toStatus(fmt.Errorf("dataset 0: %w", missing))
	var named *store.MissingError
	if back = fromStatus(st.Err()); !errors.As(back, &named) || !slices.Equal(named.Digests, missing.Digests[:maxErrorMissing]) || !errors.Is(back, store.ErrMissing) {
		t.Errorf("missing: %v", named)
	}
	if v := detailOf[*errdetails.PreconditionFailure](st).GetViolations()[1]; v.GetType() != missingType || v.GetSubject() != dag.RawCID(missing.Digests[1]).String() {
		t.Errorf("violation: %v", v)
	}
}

// Who has no token is told to get one, and not of the scope of one; whom no token helps is not
// told to get one.
func TestScopeRefusals(t *testing.T) {
	for _, c := range []struct {
		err        error
		says, help string
	}{
		{scopeError(method{scope: write}, Identity{Name: "anonymous", Scope: read, Anonymous: true}), "needs a token with the scope write, and has none", "--scope write"},
		{scopeError(method{scope: write}, Identity{Name: "token a", Scope: read}), "token a has read: " + ErrScope.Error(), "use a token with the scope"},
		{errPrivate, "no token allows it", "without --node"},
		{forbidden("not called %q", "x"), `not called "x"`, ""},
	} {
		st := toStatus(fmt.Errorf("call: %w", c.err))
		text := refused(t, c.says, st.Err(), scalev1.ErrorReason_ERROR_REASON_SCOPE, c.says).Message()
		if strings.Contains(text, ErrScope.Error()) != strings.Contains(c.says, ErrScope.Error()) {
			t.Errorf("%q", text)
		}
		links := detailOf[*errdetails.Help](st).GetLinks()
		if (len(links) == 1) != (c.help != "") || len(links) == 1 && !strings.Contains(links[0].GetDescription(), c.help) {
			t.Errorf("%s: help %v, want %q", text, links, c.help)
		}
		if back := fromStatus(st.Err()); !errors.Is(back, ErrScope) {
			t.Errorf("%s comes back as %v", text, back)
		}
	}
}

// What a node tells fits into what clients take of headers, and is text.
func TestErrorTextBounds(t *testing.T) {
	for _, s := range []string{strings.Repeat("x", 5000), strings.Repeat("é€", 3000), strings.Repeat("\xff", 9000), "begin" + strings.Repeat("€", 4000) + "end", ""} {
		got := cutText(s, maxErrorText)
		if len(got) > maxErrorText || !utf8.ValidString(got) {
			t.Errorf("%d bytes became %d, valid %t", len(s), len(got), utf8.ValidString(got))
		}
		if strings.HasPrefix(s, "begin") && !(strings.HasPrefix(got, "begin") && strings.HasSuffix(got, "end")) {
			t.Errorf("%q", got)
		}
	}
	if got := cutText("as it is", 20); got != "as it is" {
		t.Errorf("%q", got)
	}
}

// Faults of the node have a number and no words; a number that was given is kept.
func TestInternalErrors(t *testing.T) {
	secret := errors.New("/home/node/key: secret")
	for _, err := range []error{secret, fmt.Errorf("x: %w", store.ErrKeys), newPanicError("at the disco"), os.ErrNotExist} {
		st := toStatus(err)
		if st.Code() != codes.Internal || strings.Contains(st.Message(), err.Error()) || !regexp.MustCompile(`number [0-9a-f]{12} `).MatchString(st.Message()) {
			t.Errorf("%v: %v", err, st)
		}
		if back := fromStatus(st.Err()); !errors.Is(back, ErrInternal) && !errors.Is(back, store.ErrKeys) && !errors.Is(back, os.ErrNotExist) {
			t.Errorf("%v comes back as %v", err, back)
		}
	}
	once, ok := asInternal(secret)
	if again, _ := asInternal(fmt.Errorf("more: %w", once)); !ok || again.Error() != once.Error() {
		t.Errorf("%v, then %v", once, again)
	}
}

// Statuses that are not of this API, or of a later one, have a class by their code.
func TestForeignStatuses(t *testing.T) {
	for code, want := range map[codes.Code]error{
		codes.NotFound: store.ErrNotFound, codes.Unauthenticated: ErrToken, codes.PermissionDenied: ErrScope, codes.ResourceExhausted: ErrLimit,
		codes.InvalidArgument: store.ErrInvalid, codes.OutOfRange: store.ErrInvalid, codes.Canceled: context.Canceled,
		codes.DeadlineExceeded: context.DeadlineExceeded, codes.AlreadyExists: store.ErrExists, codes.Aborted: store.ErrConflict,
		codes.DataLoss: store.ErrCorrupt, codes.Unimplemented: errors.ErrUnsupported, codes.Internal: ErrInternal, codes.Unknown: ErrInternal,
	} {
		plain := status.New(code, "x")
		later, err := plain.WithDetails(&errdetails.ErrorInfo{Domain: errorDomain, Reason: "OF_A_LATER_VERSION"})
		if err != nil {
			t.Fatal(err)
		}
		other, err := plain.WithDetails(&errdetails.ErrorInfo{Domain: "elsewhere", Reason: "NO_SPACE"})
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range []*status.Status{plain, later, other} {
			if got := fromStatus(st.Err()); !errors.Is(got, want) || errors.Is(got, store.ErrNoSpace) {
				t.Errorf("%v is %v, want %v", st, got, want)
			}
			if again := toStatus(fromStatus(st.Err())); again.Code() != code {
				t.Errorf("%v passed on is %v", st, again)
			}
		}
	}
	unknown, err := status.New(codes.Aborted, "x").WithDetails(&errdetails.ErrorInfo{
		Domain: errorDomain, Reason: "CONFLICT", Metadata: map[string]string{"class": "of a later version"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := fromStatus(unknown.Err()); !errors.Is(got, store.ErrConflict) {
		t.Errorf("a class that is not known: %v", got)
	}
	var retry *RetryAfter
	for said, want := range map[time.Duration]time.Duration{0: 0, -time.Second: 0, time.Minute: time.Minute, 1000 * time.Hour: time.Hour} {
		st, err := status.New(codes.Unavailable, "x").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(said)})
		if err != nil {
			t.Fatal(err)
		}
		if got := fromStatus(st.Err()); errors.As(got, &retry) != (want > 0) || want > 0 && retry.After != want {
			t.Errorf("told to come back after %v: %v", said, got)
		}
	}
	if fromStatus(nil) != nil || fromStatus(io.EOF) != io.EOF || toStatus(nil) != nil {
		t.Error("nil and io.EOF are not errors")
	}
	if err := fromStatus(ledger.ErrProof); err != ledger.ErrProof {
		t.Errorf("no status: %v", err)
	}
}
