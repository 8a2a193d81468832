"""Every route of Synapse that changes something or gives content away, and as what its requests are recorded.

The routes are those of Synapse 1.151.0 and 1.163.2; a test holds the table against what the installed Synapse serves.
In a path, ``client/`` stands for ``/_matrix/client/{version}/``, ``media/`` for ``/_matrix/media/{version}/``,
``federation/`` for ``/_matrix/federation/{version}/``, ``admin/`` for ``/_synapse/admin/{version}/`` and ``pages/`` for
``/_synapse/client/``. What a placeholder's name means is in :mod:`synapse_modules.audit.request_events`. After the path
stand details that every record has; ``anybody=true`` says that a refusal is recorded also of somebody without a valid
access token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse_modules.core.actions import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EFFECTS", "RECORDED", "REFUSALS", "UNRECORDED"]

RECORDED: Final[Mapping[Action, str]] = {
    Action.AUTH_LOGOUT: """
        POST client/logout everywhere=false
        POST client/logout/all everywhere=true
        POST pages/oidc/backchannel_logout
    """,
    Action.USER_PASSWORD_CHANGE: """
        POST client/account/password anybody=true
    """,
    Action.USER_PASSWORD_RESET: """
        POST admin/reset_password/{user}
    """,
    Action.USER_DATA_CHANGE: """
        POST client/account/3pid
        POST client/account/3pid/add
        POST client/account/3pid/bind
        POST client/account/3pid/delete
        POST client/account/3pid/unbind
        PUT,DELETE client/profile/{user}/{field}
        PUT,DELETE client/user/{user}/account_data/{type}
        PUT,DELETE client/user/{user}/rooms/{room}/account_data/{type}
        PUT,DELETE client/user/{user}/rooms/{room}/tags/{tag} event_type=m.tag
        PUT,DELETE client/rooms/{room}/thread/{thread}/subscription
        PUT,DELETE client/pushrules/{rest} event_type=m.push_rules
    """,
    Action.DEVICE_DELETE: """
        DELETE client/devices/{device}
        POST client/delete_devices
        DELETE admin/users/{user}/devices/{device}
        POST admin/users/{user}/delete_devices
    """,
    Action.REPORT_CREATE: """
        POST client/rooms/{room}/report kind=room
        POST client/rooms/{room}/report/{event} kind=event
        POST client/users/{user}/report kind=user
    """,
    Action.ROOM_DELETE: """
        DELETE admin/rooms/{room}
    """,
    Action.MEDIA_UPLOAD: """
        POST media/upload
        PUT media/upload/{origin}/{media}
    """,
    Action.MEDIA_DOWNLOAD: """
        GET client/media/download/{origin}/{media}
        GET client/media/download/{origin}/{media}/{file}
        GET client/media/thumbnail/{origin}/{media}
        GET client/media/preview_url
        GET media/download/{origin}/{media}
        GET media/download/{origin}/{media}/{file}
        GET media/thumbnail/{origin}/{media}
        GET media/preview_url
        GET federation/media/download/{media}
        GET federation/media/thumbnail/{media}
    """,
    Action.MEDIA_QUARANTINE: """
        POST admin/media/quarantine/{origin}/{media}
        POST admin/quarantine_media/{room}
        POST admin/room/{room}/media/quarantine
        POST admin/user/{user}/media/quarantine
    """,
    Action.MEDIA_UNQUARANTINE: """
        POST admin/media/unquarantine/{origin}/{media}
    """,
    Action.MEDIA_DELETE: """
        DELETE admin/media/{origin}/{media}
        POST admin/media/delete
        POST admin/media/{origin}/delete
        POST admin/purge_media_cache
        DELETE admin/users/{user}/media
    """,
    Action.CLIENT_REQUEST: """
        PUT client/devices/{device}
        PUT,DELETE client/dehydrated_device
        POST client/keys/device_signing/upload
        POST client/keys/signatures/upload
        POST client/room_keys/version
        PUT,DELETE client/room_keys/version/{number}
        DELETE client/room_keys/keys
        DELETE client/room_keys/keys/{room}
        DELETE client/room_keys/keys/{room}/{session}
        POST client/account/3pid/email/requestToken
        POST client/account/3pid/msisdn/requestToken
        POST client/account/password/email/requestToken
        POST client/account/password/msisdn/requestToken
        POST client/register/email/requestToken
        POST client/register/msisdn/requestToken
        GET client/add_threepid/email/submit_token
        POST client/add_threepid/msisdn/submit_token
        GET client/registration/{medium}/submit_token
        GET,POST pages/password_reset/email/submit_token
        GET client/account_validity/renew
        POST client/account_validity/send_mail
        POST client/login/get_token
        POST client/login/token
        POST client/user/{user}/openid/request_token
        POST client/pushers/set
        GET client/pushers/remove
        GET,POST pages/unsubscribe
        POST /_matrix/consent
        POST client/rooms/{room}/forget
        PUT client/rooms/{room}/forget/{txn}
        POST client/rooms/{room}/upgrade
        PUT,DELETE client/directory/room/{alias}
        PUT client/directory/list/room/{room}
        PUT,DELETE client/directory/list/appservice/{network}/{room}
        POST client/search
        POST client/delayed_events/{delay}/cancel
        POST client/appservice/fed_proxy
    """,
    Action.ADMIN_API: """
        GET client/admin/whois/{user}
        POST admin/account_validity/validity
        GET admin/auth_providers/{provider}/users/{name}
        GET,POST admin/background_updates/enabled
        POST admin/background_updates/start_job
        GET admin/background_updates/status
        POST admin/deactivate/{user}
        GET admin/event_reports
        GET,DELETE admin/event_reports/{report}
        GET,PUT admin/experimental_features/{user}
        GET admin/federation/destinations
        GET admin/federation/destinations/{name}
        GET admin/federation/destinations/{name}/rooms
        POST admin/federation/destinations/{name}/reset_connection
        GET admin/fetch_event/{event}
        POST admin/join/{room}
        GET admin/media/{origin}/{media}
        POST admin/media/protect/{media}
        GET admin/media/quarantine_changes
        POST admin/media/unprotect/{media}
        POST admin/purge_history/{room}
        POST admin/purge_history/{room}/{event}
        GET admin/purge_history_status/{purge}
        GET,POST admin/register
        GET admin/registration_tokens
        GET,PUT,DELETE admin/registration_tokens/{token}
        POST admin/registration_tokens/new
        GET admin/room/{room}/media
        GET admin/rooms
        GET admin/rooms/{room}
        GET,PUT admin/rooms/{room}/block
        GET admin/rooms/{room}/context/{event}
        GET admin/rooms/{room}/delete_status
        GET admin/rooms/delete_status/{delete}
        GET,DELETE admin/rooms/{room}/forward_extremities
        GET admin/rooms/{room}/hierarchy
        POST admin/rooms/{room}/make_room_admin
        GET admin/rooms/{room}/members
        GET admin/rooms/{room}/messages
        GET admin/rooms/{room}/state
        GET admin/rooms/{room}/timestamp_to_event
        GET admin/scheduled_tasks
        GET admin/search_users/{user}
        POST admin/send_server_notice
        PUT admin/send_server_notice/{txn}
        GET admin/server_version
        GET admin/statistics/database/rooms
        GET admin/statistics/users/media
        PUT admin/suspend/{user}
        GET admin/threepid/{medium}/users/{name}
        POST admin/user/{user}/redact
        GET admin/user/redact_status/{redact}
        GET admin/user_reports
        GET,DELETE admin/user_reports/{report}
        GET admin/username_available
        GET admin/users
        GET,PUT admin/users/{user}
        GET admin/users/{user}/accountdata
        GET,PUT admin/users/{user}/admin
        POST admin/users/{user}/_allow_cross_signing_replacement_without_uia
        GET admin/users/{user}/cumulative_joined_room_count
        GET,POST admin/users/{user}/devices
        GET,PUT admin/users/{user}/devices/{device}
        GET admin/users/{user}/joined_rooms
        POST admin/users/{user}/login
        GET admin/users/{user}/media
        GET admin/users/{user}/memberships
        GET,POST,DELETE admin/users/{user}/override_ratelimit
        GET admin/users/{user}/pushers
        GET admin/users/{user}/sent_invite_count
        POST,DELETE admin/users/{user}/shadow_ban
        GET admin/whois/{user}
        GET,POST,PUT,DELETE /_synapse/mas/{rest}
        GET,POST,PUT,DELETE,PATCH /_synapse/admin/{rest}
    """,
}
"""By the action that stands in the record, however the request ended."""

EFFECTS: Final[Mapping[Action, str]] = {
    Action.USER_REGISTER: """
        POST client/register anybody=true
        POST pages/pick_username/account_details anybody=true
        POST pages/new_user_consent anybody=true
        GET pages/sso_register anybody=true
    """,
    Action.USER_DEACTIVATE: """
        POST client/account/deactivate
    """,
}
"""By the action of what did not succeed. Of a success the effect is recorded where it happens, which may be in another
process; where it was another one, the request is recorded as ``client.request``."""

REFUSALS: Final[Mapping[Action, str]] = {
    Action.AUTH_LOGIN: """
        POST client/login anybody=true
        GET client/login/cas/ticket anybody=true login_type=m.login.sso
        GET,POST pages/oidc/callback anybody=true login_type=m.login.sso
        POST pages/saml2/authn_response anybody=true login_type=m.login.sso
        POST /_matrix/saml2/authn_response anybody=true login_type=m.login.sso
    """,
    Action.CLIENT_REQUEST: """
        POST client/refresh anybody=true
        POST client/tokenrefresh anybody=true
        POST client/createRoom
        PUT client/createRoom/{txn}
        POST client/join/{room}
        PUT client/join/{room}/{txn}
        POST client/knock/{room}
        POST client/rooms/{room}/join
        POST client/rooms/{room}/invite
        POST client/rooms/{room}/leave
        POST client/rooms/{room}/kick
        POST client/rooms/{room}/ban
        POST client/rooms/{room}/unban
        PUT client/rooms/{room}/join/{txn}
        PUT client/rooms/{room}/invite/{txn}
        PUT client/rooms/{room}/leave/{txn}
        PUT client/rooms/{room}/kick/{txn}
        PUT client/rooms/{room}/ban/{txn}
        PUT client/rooms/{room}/unban/{txn}
        POST client/rooms/{room}/send/{type}
        PUT client/rooms/{room}/send/{type}/{txn}
        PUT client/rooms/{room}/state/{type}
        PUT client/rooms/{room}/state/{type}/{key}
        POST client/rooms/{room}/redact/{event}
        PUT client/rooms/{room}/redact/{event}/{txn}
        POST client/delayed_events/{delay}/send
    """,
}
"""By the action of what was refused. Of a success there is a better record: the login's own, or the room event."""

UNRECORDED: Final[Mapping[str, str]] = {
    "members and guests read what they may read, all day long": """
        GET client/sync
        POST client/sync
        GET client/events
        GET client/events/{event}
        GET client/initialSync
        GET client/joined_rooms
        GET client/rooms/{room}/aliases
        GET client/rooms/{room}/context/{event}
        GET client/rooms/{room}/event/{event}
        GET client/rooms/{room}/hierarchy
        GET client/rooms/{room}/initialSync
        GET client/rooms/{room}/is_joined
        GET client/rooms/{room}/joined_members
        GET client/rooms/{room}/members
        GET client/rooms/{room}/messages
        GET client/rooms/{room}/relations/{event}
        GET client/rooms/{room}/relations/{event}/{relation}
        GET client/rooms/{room}/relations/{event}/{relation}/{type}
        GET client/rooms/{room}/state
        GET client/rooms/{room}/state/{type}
        GET client/rooms/{room}/state/{type}/{key}
        GET client/rooms/{room}/summary
        GET client/rooms/{room}/thread/{thread}/subscription
        GET client/rooms/{room}/threads
        GET client/rooms/{room}/timestamp_to_event
        GET client/room_summary/{room}
        GET client/summary/{room}
        GET client/thread_subscriptions
        GET client/notifications
        GET client/delayed_events
        GET client/delayed_events/{delay}
    """,
    "a name or a setting is looked up": """
        GET client/account/3pid
        GET client/account/whoami
        POST client/account_status
        GET client/capabilities
        GET client/devices
        GET client/devices/{device}
        GET client/dehydrated_device
        GET client/directory/list/room/{room}
        GET client/directory/room/{alias}
        GET client/login
        GET client/mutual_rooms
        GET client/password_policy
        GET client/presence/{user}/status
        GET client/profile/{user}
        GET client/profile/{user}/{field}
        GET,POST client/publicRooms
        GET client/pushers
        GET client/pushrules/{rest}
        GET client/register/available
        GET client/register/m.login.registration_token/validity
        GET client/retention/configuration
        GET client/room_keys/version
        GET client/room_keys/version/{number}
        GET client/rtc/transports
        GET client/thirdparty/location
        GET client/thirdparty/location/{protocol}
        GET client/thirdparty/protocol/{protocol}
        GET client/thirdparty/protocols
        GET client/thirdparty/user
        GET client/thirdparty/user/{protocol}
        GET client/user/{user}/account_data/{type}
        GET client/user/{user}/filter/{filter}
        GET client/user/{user}/rooms/{room}/account_data/{type}
        GET client/user/{user}/rooms/{room}/tags
        POST client/user_directory/search
        GET /_matrix/client/versions
        GET client/voip/turnServer
        GET client/media/config
        GET media/config
        GET client/auth_issuer
        GET client/auth_metadata
        POST client/appservice/{service}/ping
    """,
    "encryption keys of devices, which clients exchange all day long": """
        GET client/keys/changes
        POST client/keys/claim
        POST client/keys/query
        POST client/keys/upload
        GET,PUT client/room_keys/keys
        GET,PUT client/room_keys/keys/{room}
        GET,PUT client/room_keys/keys/{room}/{session}
        PUT client/sendToDevice/{type}/{txn}
        GET,POST client/dehydrated_device/{device}/events
    """,
    "it tells others that somebody is there or has read, and is soon forgotten": """
        PUT client/presence/{user}/status
        PUT client/rooms/{room}/typing/{user}
        POST client/rooms/{room}/receipt/{receipt}/{event}
        POST client/rooms/{room}/read_markers
        POST client/delayed_events/{delay}
        POST client/delayed_events/{delay}/restart
    """,
    "it only prepares another request, which is recorded": """
        POST client/user/{user}/filter
        POST media/create
        GET,POST client/auth/{stage}/fallback/web
        GET client/login/cas/redirect
        GET client/login/sso/redirect
        GET client/login/sso/redirect/{provider}
        GET,POST,PUT,DELETE client/rendezvous
        GET,POST,PUT,DELETE client/rendezvous/{rest}
        GET,POST,PUT,DELETE pages/rendezvous/{rest}
        GET pages/pick_idp
        GET pages/pick_username/account_details
        GET pages/pick_username/check
        GET pages/new_user_consent
        GET pages/saml2/metadata.xml
        GET /_matrix/saml2/metadata.xml
        GET /_matrix/consent
    """,
    "another server fetches or brings what its users are entitled to; what comes of it are room events": """
        GET federation/extremities/{room}
        GET federation/rooms/{room}/complexity
        POST federation/3pid/onbind
        GET federation/backfill/{room}
        GET federation/event/{event}
        GET federation/event_auth/{room}/{event}
        PUT federation/exchange_third_party_invite/{room}
        POST federation/get_missing_events/{room}
        GET federation/hierarchy/{room}
        PUT federation/invite/{room}/{event}
        GET federation/make_join/{room}/{user}
        GET federation/make_knock/{room}/{user}
        GET federation/make_leave/{room}/{user}
        GET federation/openid/userinfo
        GET,POST federation/publicRooms
        GET federation/query/{query}
        POST federation/query/{query}
        POST federation/account_status
        PUT federation/send/{txn}
        PUT federation/send_join/{room}/{event}
        PUT federation/send_knock/{room}/{event}
        PUT federation/send_leave/{room}/{event}
        GET federation/state/{room}
        GET federation/state_ids/{room}
        GET federation/timestamp_to_event/{room}
        GET federation/user/devices/{user}
        POST federation/user/keys/claim
        POST federation/user/keys/query
        GET federation/version
        GET /_matrix/key/{rest}
        POST /_matrix/key/{rest}
    """,
    "the product's own interface, which makes its own records": """
        GET,POST,PUT,DELETE pages/governance/{rest}
    """,
    "between the homeserver's own processes": """
        GET,POST,PUT,DELETE /_synapse/replication/{rest}
    """,
    "no content and nothing that changes": """
        GET /
        GET /health
        GET /_synapse/metrics
        GET /.well-known/matrix/{rest}
        GET /_matrix/static
        GET /_matrix/static/{rest}
        GET /_synapse/jwks
        GET pages/v1/config/federation_whitelist
        GET pages/media_upload_limit_exceeded
    """,
}
"""By the reason why neither success nor refusal is recorded."""
