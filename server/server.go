package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/run"
	pb "github.com/procpool/procpool/proto/procpool/v1"
	"github.com/procpool/procpool/proto/wire"
	"github.com/procpool/procpool/server/internal/sched"
	"github.com/procpool/procpool/workerproc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Server is a daemon.
type Server struct {
	cfg     Config
	started time.Time
	api     *socket // nil if somebody else has bound the client socket
	clients net.Listener
	workers *socket

	apiServer    *grpc.Server
	workerServer *grpc.Server
	health       *health.Server

	cgroups   *workerproc.Cgroups // for the workers; nil: there are none
	noCgroups error               // why
	guardian  *workerproc.Guardian
	expected  expected
	budget    budget
	stop      atomic.Bool    // no new calls and pools
	receivers sync.WaitGroup // of calls
	running   sync.WaitGroup // owners of pools

	mu          sync.Mutex
	pools       map[string]*pool
	calls       map[string]callRef    // by id
	ended       []ended               // the last pools that have ended, for Join; oldest first
	followers   map[*feed]struct{}    // of the news of all pools
	watchers    map[*watcher]struct{} // of what happens in all pools
	noMorePools bool
	openedTally Tally // of opened pools that have ended

	configuring sync.Mutex             // held while the configuration is applied
	configured  map[string]*configured // pools of the configuration, by name; under configuring

	statsMu   sync.Mutex    // held while Stats asks; before mu
	openedCPU time.Duration // of opened pools, as Stats last had it; under statsMu
}

// ended is what is left of a pool.
type ended struct {
	name string
	how  *refusal // what to say to who still wants it
}

type callRef struct {
	pool *pool
	call *call
}

// ErrDirInUse is New's error when another daemon has its sockets in Config.Dir.
var ErrDirInUse = errors.New("the runtime directory is in use")

// New makes a daemon and binds its sockets, so that clients may connect from now on. Run serves them.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	s := &Server{
		cfg: cfg, started: time.Now(), pools: make(map[string]*pool), calls: make(map[string]callRef), configured: make(map[string]*configured),
		followers: make(map[*feed]struct{}), watchers: make(map[*watcher]struct{}), openedTally: newTally(),
	}
	s.expected.workers = make(map[[32]byte]*worker)
	s.budget.init(cfg.PerUser, cfg.Total)
	dirMode, group := os.FileMode(0o700), -1
	if cfg.System != nil {
		dirMode, group = 0o755, int(cfg.System.Clients)
	}
	if err := os.MkdirAll(cfg.Dir, dirMode); err != nil {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	private := filepath.Join(cfg.Dir, "private")
	if err := os.Mkdir(private, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("runtime directory: %w", err)
	}
	if s.clients = cfg.Listener; s.clients == nil {
		if s.api, err = listen(cfg.Addr, cfg.SocketMode, group); err != nil {
			return nil, err
		}
		s.clients = s.api
	}
	if s.workers, err = listen(filepath.Join(private, "worker.sock"), 0o600, -1); err != nil {
		if s.api != nil {
			s.api.Close()
			s.api.remove()
		}
		if errors.Is(err, errServed) {
			err = fmt.Errorf("%w: another procpoold has its sockets in %s; give this one an --addr in a directory of its own", ErrDirInUse, cfg.Dir)
		}
		return nil, err
	}
	if err := s.openCgroups(); err != nil {
		s.workers.Close()
		s.workers.remove()
		if s.api != nil {
			s.api.Close()
			s.api.remove()
		}
		return nil, err
	}
	s.guardian = workerproc.NewGuardian(s.cgroups, func(err error) {
		cfg.Logger.Warn("should this daemon be killed, workers that hang or are stopped would live on", "reason", err)
	})

	common := []grpc.ServerOption{
		grpc.ForceServerCodecV2(wire.Codec{Apart: true}),
		grpc.MaxRecvMsgSize(wire.MaxMessage), grpc.MaxSendMsgSize(wire.MaxMessage), experimental.BufferPool(wire.Buffers),
		grpc.ConnectionTimeout(5 * time.Second), grpc.KeepaliveParams(keepalive.ServerParameters{Time: math.MaxInt64}), // silence ends nobody; by default it would after 2 h
		grpc.ChainUnaryInterceptor(s.recoverUnary), grpc.ChainStreamInterceptor(s.recoverStream),
		grpc.WaitForHandlers(true),
	}
	s.apiServer = grpc.NewServer(append(slices.Clone(common),
		grpc.ChainUnaryInterceptor(s.allowUnary, s.countUnary), grpc.ChainStreamInterceptor(s.allowStream, s.countStream),
		grpc.Creds(unixPeer{watch: !cfg.Embedded, groups: cfg.System != nil}), grpc.InitialWindowSize(256<<10), grpc.InitialConnWindowSize(16<<20))...)
	porch := &porch{room: porchRoom, patience: porchPatience, expected: s.expected.count}
	s.workerServer = grpc.NewServer(append(slices.Clone(common),
		grpc.Creds(unixPeer{porch: porch}), grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(16<<20))...)
	s.health = health.NewServer()
	pb.RegisterPoolServiceServer(s.apiServer, &poolService{server: s})
	healthpb.RegisterHealthServer(s.apiServer, s.health)
	if cfg.Services != nil {
		cfg.Services(s.apiServer)
	}
	s.health.SetServingStatus(pb.PoolService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	pb.RegisterWorkerServiceServer(s.workerServer, &workerService{server: s})
	return s, nil
}

// Addr is the path of the client socket.
func (s *Server) Addr() string {
	if s.api != nil {
		return s.api.path
	}
	return s.clients.Addr().String()
}

// Run serves until ctx is done, then stops in order: no new calls, the accepted ones end, workers stop, sockets close. It returns when
// every worker has been reaped. After Config.DrainTimeout what is left is dropped.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	interrupt := func(error) { cancel() } // run.Group interrupts one after another, so none may block
	var g run.Group
	g.Add(func() error {
		<-ctx.Done()
		s.shutdown()
		return nil
	}, interrupt)
	g.Add(func() error { return s.serve(s.apiServer, s.clients) }, interrupt)
	g.Add(func() error { return s.serve(s.workerServer, s.workers) }, interrupt)
	s.cfg.Logger.Info("serving", "addr", s.Addr(), "pid", os.Getpid())
	return g.Run()
}

// serve is grpc.Server.Serve, for which a listener that we close is no error.
func (s *Server) serve(server *grpc.Server, l net.Listener) error {
	if err := server.Serve(l); err != nil && !s.stop.Load() {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// stopTimeout is how long streams may take to end once their pools have ended.
const stopTimeout = 5 * time.Second

// shutdown ends the daemon in order. Each step has an end of its own.
func (s *Server) shutdown() {
	log := s.cfg.Logger
	s.stop.Store(true) // first: new calls are refused from here on…
	s.clients.Close()  // …and new connections wait for the successor, if systemd holds the socket
	s.health.Shutdown()
	log.Info("stopping", "pools", len(s.allPools()), "drain_timeout", s.cfg.DrainTimeout)
	for _, p := range s.allPools() {
		p.close()
	}
	quiet := make(chan struct{})
	go func() { // ends: pools that do not drain are terminated below
		s.running.Wait()
		close(quiet)
	}()
	select {
	case <-quiet:
	case <-time.After(s.cfg.DrainTimeout):
		log.Warn("drain timeout: dropping what is left", "pools", len(s.allPools()))
		for _, p := range s.allPools() {
			p.terminate(sched.Stopping)
		}
		<-quiet
	}
	s.endFollowers()
	s.guardian.Close() // there are no workers any more
	s.closeCgroups()
	s.stopServer(s.apiServer)
	s.stopServer(s.workerServer)
	s.receivers.Wait()
	s.workers.remove()
	if s.api != nil {
		s.api.remove()
	}
	log.Info("stopped")
}

// stopServer lets the streams that are ending end, and cuts the rest.
func (s *Server) stopServer(server *grpc.Server) {
	timer := time.AfterFunc(stopTimeout, server.Stop)
	server.GracefulStop()
	timer.Stop()
}

func (s *Server) stopping() bool { return s.stop.Load() }

// newPool makes a pool and starts it. config is nil for a pool that a client makes.
func (s *Server) newPool(spec *pb.PoolSpec, uid uint32, opened bool, config *PoolConfig) (*pool, error) {
	if err := completeSpec(spec); err != nil {
		return nil, err
	}
	if err := s.checkProgram(spec.Program); err != nil {
		return nil, err
	}
	if err := s.checkLimits(spec); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop.Load() {
		return nil, errStopping
	}
	if s.pools[spec.Name] != nil {
		return nil, refuse(pb.Reason_REASON_POOL_EXISTS, "there is a pool %q already", spec.Name).of(spec.Name)
	}
	p := newPool(s, spec, uid, opened)
	p.config.Store(config)
	s.pools[spec.Name] = p
	for f := range s.followers {
		p.events.subscribe(f, 0, false)
	}
	for w := range s.watchers {
		p.watchers[w] = false
	}
	p.happened(pb.WatchKind_WATCH_KIND_POOL_MADE, func(*pb.WatchEvent) {})
	s.ended = slices.DeleteFunc(s.ended, func(e ended) bool { return e.name == spec.Name })
	s.running.Go(func() {
		p.run()
		s.removePool(p)
		close(p.joined) // its name is free again
	})
	p.log.Info("created", "workers", spec.Workers, "program", spec.Program.Path, "uid", uid)
	return p, nil
}

// maxEnded is how many names of ended pools are remembered.
const maxEnded = 1000

func (s *Server) removePool(p *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pools, p.name)
	if p.opened {
		s.keepTally(p)
	}
	if len(s.ended) == maxEnded {
		s.ended = s.ended[1:]
	}
	how := refuse(pb.Reason_REASON_POOL_CLOSED, "pool %q has ended", p.name)
	if p.terminated {
		how = refuse(pb.Reason_REASON_POOL_TERMINATED, "pool %q has been terminated", p.name)
	}
	s.ended = append(s.ended, ended{p.name, how.of(p.name)})
}

// pool finds a pool that has not ended.
func (s *Server) pool(name string) (*pool, error) {
	p, how, err := s.find(name)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, how
	}
	return p, nil
}

// poolOrEnded finds a pool; nil if it was there and has ended.
func (s *Server) poolOrEnded(name string) (*pool, error) {
	p, _, err := s.find(name)
	return p, err
}

// find finds a pool, or how it has ended.
func (s *Server) find(name string) (p *pool, how *refusal, err error) {
	if name == "" {
		return nil, nil, badRequest("pool is missing: which pool?")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pools[name]; p != nil {
		return p, nil, nil
	}
	if i := slices.IndexFunc(s.ended, func(e ended) bool { return e.name == name }); i >= 0 {
		return nil, s.ended[i].how, nil
	}
	var known []string
	for name := range s.pools {
		known = append(known, name)
	}
	slices.Sort(known)
	return nil, nil, refuse(pb.Reason_REASON_UNKNOWN_POOL, "there is no pool %.80q", name).of(name).knowing(known, "pool at all")
}

// allPools is the pools by name.
func (s *Server) allPools() []*pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName()
}

// byName is the pools by name. The caller holds mu.
func (s *Server) byName() []*pool {
	var all []*pool
	for _, p := range s.pools {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pool) int { return strings.Compare(a.name, b.name) })
	return all
}

func (s *Server) rememberCall(p *pool, c *call) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, exists := s.calls[c.id]; exists {
		return refuse(pb.Reason_REASON_CALL_EXISTS, "there is a call %s already", c.id)
	}
	s.calls[c.id] = callRef{p, c}
	return nil
}

func (s *Server) forgetCall(id string) {
	s.mu.Lock()
	delete(s.calls, id)
	s.mu.Unlock()
}

func (s *Server) call(id string) (*pool, *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := s.calls[id]
	return ref.pool, ref.call
}

// A malformed message may cost its sender a call, never the daemon.

func (s *Server) recoverUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(info.FullMethod, r)
		}
	}()
	return handler(ctx, req)
}

func (s *Server) recoverStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(info.FullMethod, r)
		}
	}()
	return handler(srv, stream)
}

func (s *Server) panicked(method string, r any) error {
	stack := make([]byte, 16<<10)
	stack = stack[:runtime.Stack(stack, false)]
	s.cfg.Logger.Error("panic", "method", method, "panic", r, "stack", string(stack))
	return status.Errorf(codes.Internal, "procpoold has a defect: %s panicked: %v; its log has the stack", method, r)
}

func random() float64 { return rand.Float64() }

func ownUID() uint32 { return uint32(os.Getuid()) }
