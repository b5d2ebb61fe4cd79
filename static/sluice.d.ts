// Types of /sluice.js, and of the global that /sluice.global.js makes.

/** An event of a room. */
export interface Event<T = unknown> {
  /** Position in its room, `<epoch>-<seq>`. Ephemeral events have none. */
  id?: string;
  room: string;
  /** `message` where the publisher did not say otherwise. */
  type: string;
  /** Authenticated subject of the publisher. */
  from?: string;
  /** When a node took it, RFC 3339. */
  at: string;
  /** JSON, or a string for text. */
  data: T;
}

/** Events that can no longer be had. It is told before what follows them. */
export interface Gap {
  room: string;
  /** The last position before the gap; null if the cursor could not be read. */
  after: string | null;
  /** Position of the next event; null if there is none yet. */
  resumes_at: string | null;
  /** How many are missing; null if nobody can tell. */
  missed: number | null;
  reason: 'trimmed' | 'truncated' | 'new_history' | 'bad_cursor' | 'purged' | 'slow' | 'outage' | (string & {});
}

/** Somebody came or went. */
export interface Presence {
  type: 'join' | 'leave';
  room: string;
  user: string;
  info?: unknown;
  /** How many users are in the room now. */
  count: number;
}

/** How the subscription does. */
export interface State {
  /** `denied` and `closed` are final. */
  state: 'connecting' | 'live' | 'reconnecting' | 'offline' | 'denied' | 'closed';
  /** How events come. */
  way?: 'sse' | 'ndjson' | 'poll';
  /** Id of the stream, which all tabs share. */
  stream?: string;
  /** This tab holds the stream. */
  leader?: boolean;
  /** The gateway's log is out of reach: events may come late. */
  degraded?: boolean;
  /** When the next attempt is made, in milliseconds since 1970. */
  until?: number;
  /** Why it was denied: the status and what the gateway said. */
  status?: number;
  error?: string;
}

export interface Access {
  /** Where the gateway is; where the script came from if left out. May have a path. */
  url?: string;
  /** A token, or a function that gives one that is valid now. */
  token?: string | (() => string | Promise<string>);
}

export interface SubscribeOptions<T = unknown> extends Access {
  /** Each event, once and in the order of its room. */
  onEvent?: (event: Event<T>) => void;
  onGap?: (gap: Gap) => void;
  onState?: (state: State) => void;
  onPresence?: (presence: Presence) => void;
  /** Be a member of the rooms, under this name in an open gateway. With tokens members are subjects, and any name will do. */
  presence?: string;
  /** Where to begin: a cursor, `earliest` or `latest`. If left out, where this tab was before a reload, else `latest`. */
  after?: string;
  /** Begin so many events back in each room, at most 499; where a reload would go on does not count then. */
  last?: number;
  /** Only events of these types. */
  types?: string[];
  /**
   * Whether the tabs of the browser share one stream. A string names those that do.
   * True if left out; with a token false, so that two users share nothing: give the user's name.
   */
  share?: boolean | string;
  /** Milliseconds in which a stream must have opened before another way is tried; 5000 if left out. */
  patience?: number;
  /** Milliseconds until the usual way is tried again; 300000 if left out. */
  detour?: number;
}

export interface PublishOptions extends Access {
  type?: string;
  /** Idempotency key, `[A-Za-z0-9_-]{1,128}`; a random one if left out. */
  key?: string;
  /** To the streams that are open now, kept nowhere, and sent once only. */
  ephemeral?: boolean;
  /** Id of a stream that is not to show it. */
  exclude?: string;
}

/** The gateway's answer to an event; ephemeral ones have no id. */
export interface Receipt {
  id?: string;
  room: string;
  type: string;
  at: string;
}

export interface Member {
  user: string;
  info?: unknown;
  streams: number;
  since: string;
}

/** What was published and has no answer yet. */
export interface Pending {
  key: string;
  room: string;
  type: string;
  data: unknown;
  /** When it was published, in milliseconds since 1970. */
  at: number;
  /** What `publish` has promised, or would have, had the page not been loaded anew. */
  answer: Promise<Receipt>;
}

export interface Subscription {
  close(): void;
  /** Try at once what would be tried later. */
  retry(): void;
  /** What comes after the last event shown: give it to `after`. Empty until the first answer. */
  readonly cursor: string;
  /** Id of the stream, for `exclude`. */
  readonly stream: string | undefined;
}

export function subscribe<T = unknown>(rooms: string | string[], options?: SubscribeOptions<T>): Subscription;

/** Data that is a string is sent as text, anything else as JSON. Fails with an Error that has a `status` where the gateway refused. */
export function publish(room: string, data: unknown, options?: PublishOptions): Promise<Receipt>;

/** What waits for its answer, in the order in which it is sent, also from before a reload. */
export function pending(options?: Access): Promise<Pending[]>;

/** Members are left out where they are too many. */
export function members(room: string, options?: Access): Promise<{ room: string; count: number; members?: Member[] }>;

export as namespace sluice;
