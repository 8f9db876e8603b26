package grpcapi

import (
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/koii-network/scale/store"
)

// An httpError is a request that is refused before it is looked at, with a status of HTTP
// that no gRPC code stands for.
type httpError struct {
	status int
	why    string
}

func (e *httpError) Error() string { return e.why }
func (e *httpError) Unwrap() error { return store.ErrInvalid }

// forbidden refuses whoever may not call at all, or not as he does.
func forbidden(format string, args ...any) error {
	return &refusal{class: ErrScope, why: fmt.Sprintf(format, args...)}
}

// checks tells requests of programs, and of pages that belong here, from those that the
// page of another site makes a browser send:
//
//   - Host: a page whose name is made to point to this node (DNS rebinding) calls it by
//     that name, which is not one of the node's.
//   - Origin and Sec-Fetch-Site: what browsers say about where a request comes from.
//   - Content-Type: a page cannot send application/json elsewhere without being allowed to
//     by an answer to a preflight request, which no page of another site gets.
type checks struct {
	hosts   []string // lower case, without port
	origins []string // as formatOrigin has them
}

func newChecks(hosts, origins []string) (checks, error) {
	var c checks
	for _, h := range hosts {
		name, ok := hostName(h)
		if !ok {
			return c, fmt.Errorf("%q is not a host name or address", h)
		}
		c.hosts = append(c.hosts, name)
	}
	for _, o := range origins {
		origin, ok := formatOrigin(o)
		if !ok {
			return c, fmt.Errorf("%q is not an origin such as https://app.example", o)
		}
		c.origins = append(c.origins, origin)
	}
	return c, nil
}

var httpMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// check returns why a request is refused. done says that it was a preflight request, and
// has been answered. health is for requests about which no page could learn anything: they
// may call the node by any address, as schedulers do.
func (c *checks) check(w http.ResponseWriter, r *http.Request, health bool) (done bool, err error) {
	if !c.hostAllowed(r.Host, health) {
		return false, forbidden("this node is not called %q; its operator can add the name with --http-host", r.Host)
	}
	w.Header().Add("Vary", "Origin")
	origins := r.Header.Values("Origin")
	if len(origins) > 1 {
		return false, forbidden("more than one Origin")
	}
	if len(origins) == 1 {
		if !c.originAllowed(origins[0], r) {
			return false, forbidden("pages of %q may not call this node; its operator can add the origin with --http-origin", origins[0])
		}
		w.Header().Set("Access-Control-Allow-Origin", origins[0])
		w.Header().Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
		w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			preflight(w, r)
			return true, nil
		}
	} else if foreignFetch(r) {
		return false, forbidden("pages of other sites may not call this node")
	}
	if !slices.Contains(httpMethods, r.Method) {
		return false, &httpError{http.StatusMethodNotAllowed, fmt.Sprintf("the method %q is not for this node", r.Method)}
	}
	plain := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodDelete
	if plain && r.ContentLength == 0 {
		return false, nil
	}
	if !jsonBody(r.Header) {
		return false, &httpError{http.StatusUnsupportedMediaType, "the Content-Type must be application/json"}
	}
	for _, v := range r.Header.Values("Content-Encoding") {
		if !strings.EqualFold(v, "identity") {
			w.Header().Set("Accept-Encoding", "identity")
			return false, &httpError{http.StatusUnsupportedMediaType, fmt.Sprintf("bodies are taken as they are, without the Content-Encoding %q", v)}
		}
	}
	return false, nil
}

func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", strings.Join(httpMethods, ", "))
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
	h.Set("Access-Control-Max-Age", "600")
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	w.WriteHeader(http.StatusNoContent)
}

// foreignFetch reports whether a browser says that the page of another site wants something
// without an Origin, as images and scripts are fetched. Following a link is no harm.
func foreignFetch(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Method != http.MethodGet
}

func jsonBody(h http.Header) bool {
	v := h.Values("Content-Type")
	if len(v) != 1 {
		return false
	}
	t, params, err := mime.ParseMediaType(v[0])
	if err != nil || t != "application/json" {
		return false
	}
	for k, val := range params {
		if k != "charset" || !strings.EqualFold(val, "utf-8") {
			return false
		}
	}
	return true
}

func (c *checks) hostAllowed(host string, health bool) bool {
	name, ok := hostName(host)
	if !ok {
		return false
	}
	if isLoopbackName(name) || slices.Contains(c.hosts, name) {
		return true
	}
	if health { // an address cannot be made to point elsewhere
		_, err := netip.ParseAddr(name)
		return err == nil
	}
	return false
}

func (c *checks) originAllowed(origin string, r *http.Request) bool {
	o, ok := formatOrigin(origin)
	if !ok {
		return false
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	own, ok := formatOrigin(scheme + "://" + r.Host)
	return ok && o == own || slices.Contains(c.origins, o)
}

// isLoopbackName reports whether the result of hostName names this machine to itself.
func isLoopbackName(name string) bool {
	if name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}

// hostName returns the name or address of a Host header in lower case, without its port.
func hostName(host string) (string, bool) {
	name, bracketed := host, strings.HasPrefix(host, "[")
	switch {
	case bracketed && strings.HasSuffix(host, "]"):
		name = host[1 : len(host)-1]
	case bracketed || strings.Count(host, ":") == 1:
		var port string
		var err error
		if name, port, err = net.SplitHostPort(host); err != nil {
			return "", false
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", false
		}
	}
	if ip, err := netip.ParseAddr(name); err == nil && ip.Is4() != bracketed {
		return ip.Unmap().String(), ip.Zone() == ""
	}
	if bracketed {
		return "", false
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) > 253 {
		return "", false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return "", false
		}
	}
	return name, true
}

// formatOrigin returns the canonical text of an origin: scheme, host and port.
func formatOrigin(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#") {
		return "", false
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if port == "" {
		return "", false
	}
	name, ok := hostName(u.Host)
	if !ok {
		return "", false
	}
	if p := u.Port(); p != "" {
		port = p
	}
	return u.Scheme + "://" + net.JoinHostPort(name, port), true
}
