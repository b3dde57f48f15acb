BEGIN TRANSACTION;
CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users(id),
    hash TEXT NOT NULL UNIQUE,
    hint TEXT NOT NULL,
    label TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
, expires_at BIGINT, last_used_at BIGINT);
INSERT INTO "api_keys" VALUES(1,1,'90684495162850254f5854ba99069e0d990d020aaa44fc80297909724d00b772','instavm_sk_GBZQ','first key',1795653178744073,NULL,NULL,1795653178857632);
CREATE TABLE audit_events (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    event_group TEXT NOT NULL,
    event_type TEXT NOT NULL,
    status TEXT NOT NULL,
    actor_type TEXT NOT NULL,
    actor_id BIGINT,
    owner_id BIGINT,
    credential TEXT,
    address TEXT,
    request_id TEXT,
    session_id TEXT,
    vm_id TEXT,
    resource_id TEXT,
    details TEXT NOT NULL,
    message TEXT
);
INSERT INTO "audit_events" VALUES(1,'evt-16717ae3aeb24e539eaf7d2c0c2a7d34',1795653178744401,'user','user.created','success','system',NULL,1,NULL,NULL,NULL,NULL,NULL,NULL,'{}',NULL);
INSERT INTO "audit_events" VALUES(2,'evt-7fa235273eff474aa74b461d35b82d07',1795653178744290,'api_key','api_key.created','success','system',NULL,1,NULL,NULL,NULL,NULL,NULL,'1','{}',NULL);
INSERT INTO "audit_events" VALUES(3,'evt-97425533114441389de1a4000ce37130',1795653178804708,'server','server.started','success','system',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"version":"0.1.0"}',NULL);
INSERT INTO "audit_events" VALUES(4,'evt-fe8d10e00b1c4e138f8f51cfa1a74328',1795653178855048,'session','session.created','success','user',1,1,'key:1','127.0.0.1','1fe09d1a973da968db228750c781a55a','49dd97c1-00e9-4429-b62d-d7cb3fc6d61e',NULL,NULL,'{}',NULL);
INSERT INTO "audit_events" VALUES(5,'evt-0d85847d340d4554a1065677203c971d',1795653178859809,'vm','vm.started','success','system',NULL,1,NULL,NULL,'1fe09d1a973da968db228750c781a55b','49dd97c1-00e9-4429-b62d-d7cb3fc6d61e','vm-2c3nhx4h797g',NULL,'{"memory_mb":512,"vcpu_count":1,"vm_lifetime_seconds":900}',NULL);
INSERT INTO "audit_events" VALUES(6,'evt-fe39a4c230404406b35106333050cd78',1795653209866773,'execution','execution.created','success','user',1,1,'key:1','127.0.0.1','1fe09d1a973da968db228750c781a55b','49dd97c1-00e9-4429-b62d-d7cb3fc6d61e','vm-2c3nhx4h797g','exec-4cc7d8ff98194c91857a0b678b811901','{"language":"python","mode":"sync"}',NULL);
INSERT INTO "audit_events" VALUES(7,'evt-afa9c6581d5a43428a088f460bcf3a3b',1795653209909952,'execution','execution.created','success','user',1,1,'key:1','127.0.0.1','1fe09d1a973da968db228750c781a55c','49dd97c1-00e9-4429-b62d-d7cb3fc6d61e','vm-2c3nhx4h797g','exec-1460dbe2208b4e91b48b83d15bddbb2b','{"language":"bash","mode":"sync"}',NULL);
INSERT INTO "audit_events" VALUES(8,'evt-07a1e36978c14abe8b551c1cb76b9b7d',1795653210009085,'execution','execution.created','success','user',1,1,'key:1','127.0.0.1','1fe09d1a973da968db228750c781a55d','49dd97c1-00e9-4429-b62d-d7cb3fc6d61e','vm-2c3nhx4h797g','exec-40856b7e04bb4882a0d88b5c9b68a982','{"language":"python","mode":"sync"}',NULL);
INSERT INTO "audit_events" VALUES(9,'evt-5748a421f52042fcad9b4f30d9fccec3',1795653210032720,'vm','vm.terminated','success','system',NULL,1,NULL,NULL,NULL,'49dd97c1-00e9-4429-b62d-d7cb3fc6d61e','vm-2c3nhx4h797g',NULL,'{"origin":"boot","reason":"It was killed by request","uptime_seconds":31}',NULL);
INSERT INTO "audit_events" VALUES(10,'evt-ec58771bb6b34c318b9a7328978a3190',1795653210033346,'session','session.killed','success','user',1,1,'key:1','127.0.0.1','1fe09d1a973da968db228750c781a55e','49dd97c1-00e9-4429-b62d-d7cb3fc6d61e','vm-2c3nhx4h797g',NULL,'{}',NULL);
INSERT INTO "audit_events" VALUES(11,'evt-0eb2cf23010048fab7ed69056215494b',1795653210566472,'session','session.created','success','user',1,1,'key:1','127.0.0.1','1fe09d1a973da968db228750c781a560','417c15a9-267a-47c2-a681-b387072a207d',NULL,NULL,'{}',NULL);
INSERT INTO "audit_events" VALUES(12,'evt-0b105de692f846aca5d1c2f7038dbdfe',1795653210582001,'vm','vm.started','success','system',NULL,1,NULL,NULL,'1fe09d1a973da968db228750c781a561','417c15a9-267a-47c2-a681-b387072a207d','vm-kne35csf7d63',NULL,'{"memory_mb":512,"vcpu_count":1,"vm_lifetime_seconds":900}',NULL);
INSERT INTO "audit_events" VALUES(13,'evt-41a765bfecb448b3b73ceb909c339cba',1795653212437538,'execution','execution.created','success','user',1,1,'key:1','127.0.0.1','1fe09d1a973da968db228750c781a561','417c15a9-267a-47c2-a681-b387072a207d','vm-kne35csf7d63','exec-3067e676e2b54eacb35ece21f8f0ab6e','{"language":"python","mode":"sync"}',NULL);
INSERT INTO "audit_events" VALUES(14,'evt-9734a88b678c4d98b0adddf5dfeca09a',1795653212441102,'execution','execution.created','success','user',1,1,'key:1','127.0.0.1','1fe09d1a973da968db228750c781a562','417c15a9-267a-47c2-a681-b387072a207d',NULL,'exec-9355b309b8ec4912a07f99413ca30433','{"language":"python","mode":"async"}',NULL);
INSERT INTO "audit_events" VALUES(15,'evt-c4577fc50c4a4a5fbe204ab434058492',1795653214548418,'vm','vm.terminated','success','system',NULL,1,NULL,NULL,NULL,'417c15a9-267a-47c2-a681-b387072a207d','vm-kne35csf7d63',NULL,'{"origin":"template","reason":"It was killed by request","uptime_seconds":3}',NULL);
INSERT INTO "audit_events" VALUES(16,'evt-2316b2d6207a40e2b59dc0e7aa0cdf98',1795653214548995,'session','session.killed','success','user',1,1,'key:1','127.0.0.1','1fe09d1a973da968db228750c781a565','417c15a9-267a-47c2-a681-b387072a207d','vm-kne35csf7d63',NULL,'{}',NULL);
INSERT INTO "audit_events" VALUES(17,'evt-86173cde82f340c588442adb44af373b',1795653214589947,'server','server.stopped','success','system',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"version":"0.1.0"}',NULL);
CREATE TABLE cli_pairings (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    challenge TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    device TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    user_id BIGINT REFERENCES users(id),
    code_hash TEXT
, household TEXT NOT NULL DEFAULT '', network TEXT, token_generation BIGINT);
CREATE TABLE execution_outputs (
    execution_id TEXT NOT NULL,
    stream TEXT NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (execution_id, stream)
);
INSERT INTO "execution_outputs" VALUES('exec-4cc7d8ff98194c91857a0b678b811901','stdout',X'310A');
INSERT INTO "execution_outputs" VALUES('exec-4cc7d8ff98194c91857a0b678b811901','results',X'7B2274797065223A22657865637574655F726573756C74222C2264617461223A7B22746578742F706C61696E223A2231227D2C226D65746164617461223A7B7D7D0A');
INSERT INTO "execution_outputs" VALUES('exec-40856b7e04bb4882a0d88b5c9b68a982','stderr',X'54726163656261636B20286D6F737420726563656E742063616C6C206C617374293A0A202046696C6520223C63656C6C20323E222C206C696E6520312C20696E203C6D6F64756C653E0A20202020312F300A20202020207E5E7E0A5A65726F4469766973696F6E4572726F723A206469766973696F6E206279207A65726F0A');
INSERT INTO "execution_outputs" VALUES('exec-9355b309b8ec4912a07f99413ca30433','stdout',X'6B6570740A');
CREATE TABLE executions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    owner_id BIGINT NOT NULL REFERENCES users(id),
    session_id TEXT NOT NULL,
    language TEXT NOT NULL,
    mode TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT,
    timeout DOUBLE PRECISION,
    vm_id TEXT,
    vm_started_at BIGINT,
    restore TEXT,
    exit_code BIGINT,
    signal BIGINT,
    execution_time DOUBLE PRECISION NOT NULL,
    cpu_time DOUBLE PRECISION NOT NULL,
    state_lost BIGINT NOT NULL,
    note TEXT,
    stdout_bytes BIGINT NOT NULL,
    stdout_dropped BIGINT NOT NULL,
    stderr_bytes BIGINT NOT NULL,
    stderr_dropped BIGINT NOT NULL,
    results_bytes BIGINT NOT NULL,
    results_dropped BIGINT NOT NULL,
    output_expired_at BIGINT,
    idempotency_key TEXT,
    request_hash TEXT
);
INSERT INTO "executions" VALUES(1,'exec-4cc7d8ff98194c91857a0b678b811901',1,'49dd97c1-00e9-4429-b62d-d7cb3fc6d61e','python','sync','exited',1795653178858320,1795653190031956,1795653209865613,60.0,'vm-2c3nhx4h797g',1795653178858647,'{"generation":"a3ab0f9467b224b539b0e60db0b19762","confirmed":["randomness","wall_clock","machine_id","host_name","interpreters","disk_limit"],"origin":"boot","milliseconds":11439}',0,NULL,19.833622394,0.017993,0,NULL,2,0,0,0,66,0,NULL,NULL,NULL);
INSERT INTO "executions" VALUES(2,'exec-1460dbe2208b4e91b48b83d15bddbb2b',1,'49dd97c1-00e9-4429-b62d-d7cb3fc6d61e','bash','sync','exited',1795653209877283,1795653209877452,1795653209909383,60.0,'vm-2c3nhx4h797g',1795653178858647,'{"confirmed":["randomness","wall_clock","machine_id","host_name","interpreters","disk_limit"],"origin":"boot","generation":"a3ab0f9467b224b539b0e60db0b19762","milliseconds":11439}',0,NULL,0.031911458,0.37024,0,NULL,0,0,0,0,0,0,NULL,NULL,NULL);
INSERT INTO "executions" VALUES(3,'exec-40856b7e04bb4882a0d88b5c9b68a982',1,'49dd97c1-00e9-4429-b62d-d7cb3fc6d61e','python','sync','exited',1795653209915636,1795653209916014,1795653210008406,60.0,'vm-2c3nhx4h797g',1795653178858647,'{"generation":"a3ab0f9467b224b539b0e60db0b19762","milliseconds":11439,"origin":"boot","confirmed":["randomness","wall_clock","machine_id","host_name","interpreters","disk_limit"]}',1,NULL,0.092369615,0.038629,0,NULL,0,0,127,0,0,0,NULL,NULL,NULL);
INSERT INTO "executions" VALUES(4,'exec-3067e676e2b54eacb35ece21f8f0ab6e',1,'417c15a9-267a-47c2-a681-b387072a207d','python','sync','exited',1795653210581241,1795653211314859,1795653212436895,60.0,'vm-kne35csf7d63',1795653210581373,'{"origin":"template","generation":"fbe88321e34aa16de310881d4284969d","confirmed":["randomness","wall_clock","machine_id","host_name","interpreters","disk_limit"],"milliseconds":1087,"template":"minimal-512m1-2a563f80bbce-8c1d89fd"}',0,NULL,1.122007883,0.292486999,0,NULL,5,0,0,0,0,0,NULL,NULL,NULL);
INSERT INTO "executions" VALUES(5,'exec-9355b309b8ec4912a07f99413ca30433',1,'417c15a9-267a-47c2-a681-b387072a207d','python','async','exited',1795653212440803,1795653212441337,1795653212477625,NULL,'vm-kne35csf7d63',1795653210581373,'{"milliseconds":1087,"generation":"fbe88321e34aa16de310881d4284969d","confirmed":["randomness","wall_clock","machine_id","host_name","interpreters","disk_limit"],"origin":"template","template":"minimal-512m1-2a563f80bbce-8c1d89fd"}',0,NULL,0.036261936,0.008083001,0,NULL,5,0,0,0,0,0,NULL,NULL,NULL);
CREATE TABLE known_logins (pair TEXT PRIMARY KEY, account TEXT NOT NULL, used_at BIGINT NOT NULL);
CREATE TABLE login_attempts (
    name TEXT PRIMARY KEY,
    failures BIGINT NOT NULL,
    blocked_until BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE TABLE rate_limits (name TEXT PRIMARY KEY, whole_at BIGINT NOT NULL);
CREATE TABLE schema_version (version BIGINT NOT NULL);
INSERT INTO "schema_version" VALUES(1);
INSERT INTO "schema_version" VALUES(2);
INSERT INTO "schema_version" VALUES(3);
INSERT INTO "schema_version" VALUES(4);
INSERT INTO "schema_version" VALUES(5);
INSERT INTO "schema_version" VALUES(6);
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    owner_id BIGINT NOT NULL REFERENCES users(id),
    created_at BIGINT NOT NULL,
    vm_lifetime_seconds BIGINT NOT NULL,
    memory_mb BIGINT NOT NULL,
    vcpu_count BIGINT NOT NULL,
    environment TEXT NOT NULL,
    metadata TEXT NOT NULL,
    vm_id TEXT,
    vm_started_at BIGINT,
    vm_expires_at BIGINT,
    vm_ended_at BIGINT,
    vm_end_reason TEXT
);
INSERT INTO "sessions" VALUES('49dd97c1-00e9-4429-b62d-d7cb3fc6d61e',1,1795653178854655,900,512,1,'{}','{}','vm-2c3nhx4h797g',1795653178858647,1795654078858647,1795653210032775,'It was killed by request');
INSERT INTO "sessions" VALUES('417c15a9-267a-47c2-a681-b387072a207d',1,1795653210565393,900,512,1,'{}','{}','vm-kne35csf7d63',1795653210581373,1795654110581373,1795653214548588,'It was killed by request');
CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
, name TEXT NOT NULL DEFAULT '', plan TEXT NOT NULL DEFAULT 'unlimited', password_hash TEXT, token_generation BIGINT NOT NULL DEFAULT 0, disabled_at BIGINT);
INSERT INTO "users" VALUES(1,'admin@localhost',1795653178743334,'','unlimited',NULL,0,NULL);
CREATE TABLE vms (
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    owner_id BIGINT NOT NULL REFERENCES users(id),
    started_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    end_reason TEXT,
    vcpu_count BIGINT NOT NULL,
    memory_mb BIGINT NOT NULL,
    origin TEXT
);
INSERT INTO "vms" VALUES('vm-2c3nhx4h797g','49dd97c1-00e9-4429-b62d-d7cb3fc6d61e',1,1795653178858647,1795654078858647,1795653210032775,'It was killed by request',1,512,'boot');
INSERT INTO "vms" VALUES('vm-kne35csf7d63','417c15a9-267a-47c2-a681-b387072a207d',1,1795653210581373,1795654110581373,1795653214548588,'It was killed by request',1,512,'template');
CREATE INDEX sessions_by_owner ON sessions(owner_id, created_at);
CREATE INDEX api_keys_by_user ON api_keys(user_id);
CREATE UNIQUE INDEX executions_by_key ON executions(owner_id, idempotency_key);
CREATE INDEX executions_by_owner ON executions(owner_id, number);
CREATE INDEX executions_by_session ON executions(session_id, number);
CREATE INDEX executions_by_end ON executions(ended_at);
CREATE INDEX executions_with_key ON executions(created_at) WHERE idempotency_key IS NOT NULL;
CREATE INDEX executions_with_output ON executions(ended_at) WHERE output_expired_at IS NULL;
CREATE INDEX vms_by_session ON vms(session_id);
CREATE INDEX vms_by_owner ON vms(owner_id, started_at);
CREATE INDEX vms_by_end ON vms(ended_at);
CREATE INDEX audit_by_owner ON audit_events(owner_id, number);
CREATE INDEX audit_by_group ON audit_events(owner_id, event_group, number);
CREATE INDEX audit_by_type ON audit_events(owner_id, event_type, number);
CREATE INDEX audit_of_refusals ON audit_events(owner_id, status, number) WHERE status <> 'success';
CREATE INDEX audit_by_session ON audit_events(session_id, number) WHERE session_id IS NOT NULL;
CREATE INDEX audit_by_vm ON audit_events(vm_id, number) WHERE vm_id IS NOT NULL;
CREATE INDEX audit_by_time ON audit_events(created_at);
CREATE INDEX known_logins_by_account ON known_logins(account, used_at);
CREATE INDEX cli_pairings_by_household ON cli_pairings(household);
CREATE INDEX cli_pairings_by_network ON cli_pairings(network);
COMMIT;
